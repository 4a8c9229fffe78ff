//! Reads rows of `task_states`.

use super::{
    Name, StackId, StateRow, TaskId, TaskState, Tid, TypeId, Wait, Who,
    columns::{Columns, int_at, text_at},
};

fn who_of(task: Option<i64>, tid: Option<i32>) -> Option<Who> {
    task.map(TaskId).map(Who::Task).or_else(|| tid.map(Tid).map(Who::Thread))
}

/// Passes each row of a batch to `each`, with its texts as names. Rows in states of later versions are left out.
pub(super) fn read(
    columns: &Columns<'_>,
    mut name: impl FnMut(&str) -> Name,
    mut each: impl FnMut(StateRow),
) -> Option<()> {
    let (ts, since, state) = (columns.longs("ts")?, columns.longs("since")?, columns.texts("state")?);
    let (branch, branches) = (columns.ints("branch")?, columns.ints("branches")?);
    let (task, tid) = (columns.nullable("task_id"), columns.nullable_ints("tid"));
    let (type_id, stack, cycle) =
        (columns.nullable("type_id"), columns.nullable("stack_id"), columns.nullable("cycle"));
    let (resource, detail) = (columns.texts("resource"), columns.texts("detail"));
    let (address, deadline) = (columns.nullable("address"), columns.nullable("deadline"));
    let (holder, holder_tid) = (columns.nullable("holder_task_id"), columns.nullable_ints("holder_tid"));
    for (row, (((ts, since), branch), branches)) in ts.iter().zip(since).zip(branch).zip(branches).enumerate() {
        let state = text_at(Some(state), row).and_then(TaskState::of);
        let Some((who, state)) = who_of(task.get(row), int_at(tid, row)).zip(state) else { continue };
        each(StateRow {
            ts: *ts,
            since: *since,
            who,
            type_id: type_id.get(row).map(TypeId),
            state,
            branch: *branch,
            branches: *branches,
            cycle: cycle.get(row),
            wait: Wait {
                stack: stack.get(row).map(StackId),
                resource: text_at(resource, row).map(&mut name),
                address: address.get(row),
                deadline: deadline.get(row),
                detail: text_at(detail, row).map(&mut name),
                holder: who_of(holder.get(row), int_at(holder_tid, row)),
            },
        });
    }
    Some(())
}
