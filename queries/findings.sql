-- findings: detected problems, with severity and evidence, worst first.
--
-- A row is a problem that a rule detected in a time range: a row of the table `findings`. The recorder evaluates the rules
-- every few seconds and writes that table. `hud-analyze findings`, and this view in `hud-analyze sql`, evaluate them over
-- the given time range with the given thresholds instead, whether the session has the table or not. The range is extended
-- to whole tenths of a second. A range too large for memory is judged in parts, which `since` and `until` show.
--
-- A rule reports only where the streams that it needs were recorded. A poll or an off-CPU interval belongs to the range in
-- which it ended. The rules:
--
-- stuck_thread, stuck_poll: polls of tasks that had not ended at their thread's last observation in the range, and had
-- lasted for more than $stuck (table `in_progress`), as one poll without doubt: a warning. `stuck_thread` if the thread was
-- asleep, `stuck_poll` if not; one that waited for a CPU counts only if its samples since the poll began come to more than $stuck
-- of CPU time (of n samples, n - 1 count). By type and function; of several threads, the sentence is about the longest. Polls inside
-- `block_in_place` do not count, and tasks of unknown type count as in blocking_each.sql. `value` is the longest.
--
-- lock_cycle: tasks that waited for each other, or for themselves, at the last snapshot of all tasks in the range that found
-- it, and at those for more than $stuck before it (table `task_states`, column `cycle`): a warning. `value` is the time since
-- the first snapshot that found all of them there; `count` is the number of tasks, of which the sentence names three.
--
-- semaphore_starved: tasks that held permits of a semaphore and waited for more of it at the last snapshot of all tasks in the
-- range that found such a task there, while none was free, and at those for more than $stuck before it (table `task_states`:
-- the task is its own holder). By semaphore. `value` is the time since the first snapshot that found the longest of them
-- there; `count` is the number of tasks, of which the sentence names three.
--
-- long_poll: polls of a type of task that held their worker (blocked or busy: `dur - run_queue`) for more than $long_poll;
-- a warning if the longest held it for more than $very_long_poll. A sleep inside a task of more than $long_poll counts if no
-- poll around it was recorded. CPU samples do not count: between two of them, a task may have any number of short polls.
-- Polls and sleeps inside `block_in_place` do not count either, and tasks of unknown type count as in blocking_each.sql.
-- `value` is the longest.
--
-- cpu_share: a task whose samples on one worker come to more than $cpu_share of the time in which polls were not recorded,
-- which is at least $observed; tenths of a second without any event do not count. Whether it was in one poll or in many is
-- unknown. Of n samples, n - 1 count. `value` is the share in thousandths.
--
-- short_sleeps: sleeps inside polls of a type of task, none longer than $long_poll or 1 ms, that come to $short_sleeps per second
-- or more (of the range, or of one second if it is shorter). Sums of sleeps count too (`estimated`: their task is that of the
-- last sleep). Sleeps inside `block_in_place` do not count, nor do sleeps of 1 ms or more for a lock (as in locks.sql, but for
-- parked threads). `value` is their sum, `function` where most of it was spent.
--
-- cpu_starved: polls of tasks that waited for a CPU (`run_queue`) for more than $long_poll. The sentence says how many CPUs
-- this process and all others used (`process`), and how long a CPU limit of its control group throttled it. `value` is the
-- longest wait.
--
-- wake_delay: the 99th percentile of all wake-to-poll latencies (as in wake_latency.sql) is more than $wake_delay_p99, of at
-- least $wake_delay_count latencies. The type is the one with the greatest sum. `value` is the percentile. Not if all workers
-- together waited for a CPU for more than $wake_delay_waiting of the time in which they were not idle (as for worker_blocked).
--
-- worker_blocked: a worker, observed for at least $observed (as in workers.sql, but in the range alone), was asleep inside
-- tasks for more than $worker_blocked of that time: a warning. Short sleeps count, those inside `block_in_place` do not.
--
-- imbalance: of a runtime's workers observed for at least $observed, the busiest was on a CPU for more than $imbalance_busy
-- of its time, and for more than $imbalance times the share of the least busy one. `value` is that ratio in thousandths.
--
-- pool_saturated: the blocking pool has at least $pool_threads threads with an event in the range, observed for $observed
-- together, was busy (as in blocking_pool.sql) for more than $pool_busy of the time, and ran at least twice as many jobs as it
-- has threads: tasks with an off-CPU interval that touches the range, or a sample in it, on one of its threads. `function` is
-- where its threads slept (for 1 ms or more) or computed for the longest time.
--
-- tasks_grow: at least $growth tasks of a type were spawned, and at most $growth_ended of that number ended, ended tasks of
-- unknown type included; if `spawns` and `ends` were both recorded for at least $observed. `value` is the number of spawns.
--
-- threads_grow, fds_grow, memory_grow: the number of threads or of open file descriptors, or the resident memory in bytes (table
-- `process`), rose by at least $threads_grow, $fds_grow or $memory_grow, to at least $grow_ratio times the first value, over at
-- least $grow_time. Of the range's rows with the value, at least five, up to nine are compared: those whose number, from 0, is
-- i * (rows - 1) / (compared - 1), rounded down. Each is greater than the one before, and from compared row
-- (compared - 1) / 2 on the value rises at least half as fast as before it. `value` is the growth.
--
-- panics, cancelled_work: at least $panics tasks of a type panicked; at least $cancelled were cancelled, and these were at least
-- $cancelled_share of the type's tasks that ended (table `ends`). `value` is their number, and the task the last of them.
--
-- self_waking: tasks of a type that woke themselves $self_wakes times per second or more (of the range, or of one second if
-- it is shorter), and with at least $self_wakes_share of their wakes. `value` is the number of these wakes.
--
-- wake_storm: tasks of a type woke at least $wake_storm others per recorded poll of the type, and at least $wake_storm_rate per
-- second of the time in which wakes were recorded, which is at least 100 ms; if polls were recorded for at least that time. There
-- are at least $wake_storm_rate such wakes.
-- `value` is the number per poll, `count` that of all wakes.
--
-- spawn_rate: tasks of a type were spawned at least $spawn_rate times per second of the time in which spawns were recorded,
-- which is at least 100 ms, and per worker with an event in the range, and at least $spawn_rate times. `value` is the number
-- per second.
--
-- lock_owner_asleep: tasks on workers or in the pool waited at least $lock_wait for a mutex or RwLock, and the thread that
-- released it had slept during the wait (as in locks.sql: the holder is inferred), by the two types and the place where the
-- holder slept. `value` is the longest wait.
--
-- lock_owner_busy: such waits of a type of task, whose holder did not sleep meanwhile but for the same kind of lock, that come to
-- $lock_busy per second or more (of the range, or of one second if it is shorter). CPU samples of tasks on the threads that ended
-- the waits, from the start of the wait or the end of their own wait for a lock on, represent at least half of the sum, and one
-- type and function (`function`) at least half of these samples. `value` is the sum.
--
-- Parameters:
--   $from              epoch_ns  start of the time range
--   $to                epoch_ns  its end, exclusive
--
-- Columns:
--   rule               text      name of the rule
--   severity           text      'warning' or 'caution'
--   sentence           text      subject and extent of the problem, in one sentence
--   value              count     the figure that was compared with the threshold, in `unit`
--   threshold          count     the threshold, in `unit`
--   unit               text      'ns', 'thousandths' or 'count'
--   task_type          text      type of the task; null if the finding is about none, or if the type is unknown
--   thread             text      name of the thread; null if the finding is about none
--   ts                 epoch_ns  start of the worst; null if it has none
--
-- Further columns:
--   task_id            id        task of the worst
--   tid                id        thread of the worst
--   count              count     number of polls, samples, sleeps, latencies, tasks or waits; null if the rule counts none
--   estimated          flag      whether `value` is an estimate
--   total              ns        sum of the durations of what `count` counts; null if they have none
--   function           text      function to which the problem is attributed; null if it is attributed to none
--   file               text      its source file
--   line               id        line in it
--   since              epoch_ns  start of the judged time range
--   until              epoch_ns  its end, exclusive
--   thresholds         text      all thresholds in force: `name=value` pairs, durations in ns and shares in thousandths
--   id                 text      rule and subject (type of task, worker or thread), the same in other recordings
WITH
thread AS (
    -- part thread
    -- Each thread with its last known role, as a thread that exits loses it.
    SELECT tid, name, role, worker, runtime_id
    FROM (SELECT *, row_number() OVER (PARTITION BY tid ORDER BY (role = 'other'), ts DESC, role DESC, name) AS n
          FROM threads)
    WHERE n = 1
    -- end thread
)
SELECT f.rule, f.severity, f.sentence, f.value, f.threshold, f.unit, y.name AS task_type, t.name AS thread,
       f.worst_ts AS ts, f.task_id, f.tid, f.count, f.estimated, f.total, f.function, f.file, f.line, f.ts AS since,
       f.ts + f.dur AS until, f.thresholds,
       f.rule || '/' || coalesce(y.name, 'worker ' || CAST(t.worker AS VARCHAR), t.name, 'all') AS id
FROM findings f
LEFT JOIN task_types y ON y.type_id = f.type_id
LEFT JOIN thread t ON t.tid = f.tid
WHERE f.ts < $to AND f.ts + f.dur > $from
ORDER BY severity DESC, f.rule, f.value DESC, f.sentence, since
