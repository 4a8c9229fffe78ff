//! CPU time: hotspots by function, by line and by type of task, and the flame tree.

use core::cmp::Reverse;

use super::{
    Flame, FlameKind, FlameNode, Hotspot, Hotspots, MOST_FLAMES, MOST_ROWS, Map, Name, Origin, Place, StackId, TaskId,
    TaskKind, TypeHotspot, TypeId, Weight,
    code::{Code, PlaceNo, SpotNo},
    scene::Scene,
};

/// Samples of one stack in one type of task.
pub(super) struct Pile {
    pub(super) stack: Option<StackId>,
    pub(super) type_id: Option<TypeId>,
    pub(super) weight: Weight,
    pub(super) blamed: PlaceNo,
}

pub(super) fn of(scene: &Scene<'_>, piles: &[Pile]) -> (Hotspots, Flame) {
    let mut all = Weight::default();
    for pile in piles {
        all.samples = all.samples.saturating_add(pile.weight.samples);
        all.weight = all.weight.saturating_add(pile.weight.weight);
    }
    let code = &scene.names.code;
    let hotspots = Hotspots {
        weight: all.weight,
        samples: all.samples,
        by_function: ranked(scene, piles, |place| code.spot(place), |walked| &walked.spots),
        by_line: ranked(scene, piles, |place| place, |walked| &walked.places),
        by_type: by_type(scene, piles),
    };
    let flame = match scene.query.flame_kind {
        _ if !scene.query.has_flame => Flame::default(),
        FlameKind::Cpu => flame(scene, piles),
        FlameKind::OffCpu => flame(scene, &asleep(scene)),
    };
    (hotspots, flame)
}

/// Samples by stack and type of task, each with the place to which it is attributed.
pub(super) fn piles(scene: &mut Scene<'_>, stacks: &Map<(Option<StackId>, Option<TaskId>), Weight>) -> Vec<Pile> {
    let mut counted: Map<(Option<StackId>, Option<TypeId>), Weight> = Map::default();
    for ((stack, task), weight) in stacks {
        // A worker's own loop is not a task.
        let type_id = task.and_then(|task| scene.names.type_of.get(&task)).copied();
        let type_id = type_id.filter(|id| scene.names.types.get(id).is_some_and(|t| t.kind != TaskKind::Worker));
        let sum = counted.entry((*stack, type_id)).or_default();
        sum.samples = sum.samples.saturating_add(weight.samples);
        sum.weight = sum.weight.saturating_add(weight.weight);
    }
    let names = &mut *scene.names;
    let of = |((stack, type_id), weight)| Pile { stack, type_id, weight, blamed: names.attribute(stack, type_id) };
    counted.into_iter().map(of).collect()
}

#[derive(Default)]
struct Heat {
    own: i64,
    leaf: i64,
    total: i64,
    samples: i64,
}

/// The window's sleeps inside tasks by stack and type of task. Their attributed places are not needed for a tree.
fn asleep(scene: &Scene<'_>) -> Vec<Pile> {
    let mut counted: Map<(Option<StackId>, Option<TypeId>), i64> = Map::default();
    let long = scene.parts.iter().flat_map(|(_, partial)| partial.sleeps.items());
    let long = long.map(|sleep| (sleep.stack, sleep.task, sleep.dur));
    let short = scene.total.short.iter().map(|((_, task, stack), short)| (*stack, *task, short.asleep));
    for (stack, task, dur) in long.chain(short) {
        let type_id = scene.names.type_of.get(&task).copied();
        let is_wanted = match scene.names.kind_of_type(type_id) {
            TaskKind::Task => true,
            TaskKind::Blocking => type_id == scene.query.flame_of,
            TaskKind::Worker => false,
        };
        if is_wanted {
            let sum = counted.entry((stack, type_id)).or_default();
            *sum = sum.saturating_add(dur);
        }
    }
    let of = |((stack, type_id), weight)| Pile {
        stack,
        type_id,
        weight: Weight { samples: 0, weight },
        blamed: PlaceNo::default(),
    };
    counted.into_iter().map(of).collect()
}

/// Ranks by spot or by place.
fn ranked<K: Copy + Eq + core::hash::Hash + Into<usize>>(
    scene: &Scene<'_>,
    piles: &[Pile],
    key: impl Fn(PlaceNo) -> K,
    reached: impl Fn(&super::code::Walked) -> &Vec<K>,
) -> Vec<Hotspot> {
    let code = &scene.names.code;
    // Only places with attributed samples, or at leaves, are hotspots.
    let mut heats: Map<K, (Heat, Detail)> = Map::default();
    for pile in piles {
        let (heat, detail) = heats.entry(key(pile.blamed)).or_default();
        let weight = pile.weight.weight;
        heat.own = heat.own.saturating_add(weight);
        heat.samples = heat.samples.saturating_add(pile.weight.samples);
        heat.total = heat.total.saturating_add(weight);
        add(&mut detail.lines, pile.blamed, weight);
        add(&mut detail.types, pile.type_id, weight);
        if let Some(leaf) = code.walked(pile.stack).and_then(|w| w.frames.first()) {
            add(&mut detail.leaves, *leaf, weight);
            let (heat, detail) = heats.entry(key(*leaf)).or_default();
            heat.leaf = heat.leaf.saturating_add(weight);
            add(&mut detail.leaf_lines, *leaf, weight);
            add(&mut detail.leaf_types, pile.type_id, weight);
        }
    }
    // Index in `heats` by number, from 1: it is looked up for every frame of every stack.
    let mut at = vec![0_usize; code.len()];
    for (n, key) in heats.keys().enumerate() {
        if let Some(at) = at.get_mut((*key).into()) {
            *at = n + 1;
        }
    }
    for pile in piles {
        let Some(walked) = code.walked(pile.stack) else { continue };
        let blamed = key(pile.blamed);
        for other in reached(walked).iter().filter(|other| **other != blamed) {
            let found = at.get((*other).into()).and_then(|at| heats.get_index_mut(at.checked_sub(1)?));
            if let Some((_, (heat, _))) = found {
                heat.total = heat.total.saturating_add(pile.weight.weight);
            }
        }
    }
    let mut rows: Vec<Hotspot> = heats
        .into_values()
        .filter(|(heat, _)| heat.own > 0 || heat.samples > 0 || heat.leaf > 0)
        .filter_map(|(heat, detail)| {
            let place = detail.hottest(code)?.clone();
            let calling = detail.leaf(code).filter(|leaf| *leaf != place.function);
            let types = if detail.types.is_empty() { &detail.leaf_types } else { &detail.types };
            let task_type = types.iter().max_by_key(|(id, weight)| (**weight, Reverse(**id)));
            let task_type = task_type.and_then(|(id, _)| scene.type_ref(*id));
            let Heat { own, leaf, total, samples } = heat;
            Some(Hotspot { place, own, leaf, total, samples, task_type, calling })
        })
        .collect();
    rows.sort_by(|a, b| (b.own, b.total, &a.place).cmp(&(a.own, a.total, &b.place)));
    rows.truncate(MOST_ROWS);
    rows
}

/// Weights of a hotspot by type and leaf.
#[derive(Default)]
struct Detail {
    lines: Map<PlaceNo, i64>,
    types: Map<Option<TypeId>, i64>,
    leaves: Map<PlaceNo, i64>,
    /// Of the samples with it at the leaf: its lines, and types.
    leaf_lines: Map<PlaceNo, i64>,
    leaf_types: Map<Option<TypeId>, i64>,
}

fn add<T: Eq + core::hash::Hash>(all: &mut Map<T, i64>, what: T, weight: i64) {
    let sum = all.entry(what).or_default();
    *sum = sum.saturating_add(weight);
}

impl Detail {
    fn hottest<'c>(&self, code: &'c Code) -> Option<&'c Place> {
        let lines = if self.lines.is_empty() { &self.leaf_lines } else { &self.lines };
        let best = lines.iter().max_by_key(|(no, weight)| (**weight, Reverse(code.place(**no))));
        best.and_then(|(no, _)| code.place(*no))
    }

    /// The function at most leaves.
    fn leaf(&self, code: &Code) -> Option<Name> {
        let mut functions: Map<&Name, i64> = Map::default();
        for (no, weight) in &self.leaves {
            if let Some(place) = code.place(*no) {
                add(&mut functions, &place.function, *weight);
            }
        }
        functions.into_iter().max_by_key(|(name, weight)| (*weight, Reverse(*name))).map(|(name, _)| name.clone())
    }
}

fn by_type(scene: &Scene<'_>, piles: &[Pile]) -> Vec<TypeHotspot> {
    let code = &scene.names.code;
    let mut types: Map<Option<TypeId>, (Weight, Map<PlaceNo, i64>)> = Map::default();
    for pile in piles {
        let (sum, places) = types.entry(pile.type_id).or_default();
        sum.samples = sum.samples.saturating_add(pile.weight.samples);
        sum.weight = sum.weight.saturating_add(pile.weight.weight);
        add(places, pile.blamed, pile.weight.weight);
    }
    let mut rows: Vec<_> = types.into_iter().collect();
    rows.sort_by_key(|(id, (sum, _))| (Reverse(sum.weight), Reverse(sum.samples), id.is_none(), *id));
    rows.truncate(MOST_ROWS);
    rows.into_iter()
        .map(|(id, (sum, places))| {
            let best = places.iter().max_by_key(|(no, weight)| (**weight, Reverse(code.place(**no))));
            TypeHotspot {
                task_type: scene.type_ref(id),
                own: sum.weight,
                samples: sum.samples,
                place: best.and_then(|(no, _)| code.place(*no)).cloned(),
            }
        })
        .collect()
}

/// A node of the tree under construction.
struct Node {
    spot: Option<PlaceNo>,
    /// Frames of the runtime that it stands for, by time.
    folded: i128,
    own: i64,
    total: i64,
    children: Vec<usize>,
}

/// The name of folded frames.
const RUNTIME: &str = "tokio runtime";

/// Maximum depth of the tree: the time of deeper frames counts for their callers.
const DEEPEST: usize = 512;

fn flame(scene: &Scene<'_>, piles: &[Pile]) -> Flame {
    let code = &scene.names.code;
    let of = scene.query.flame_of;
    let mut nodes = vec![Node { spot: None, folded: 0, own: 0, total: 0, children: Vec::new() }];
    let mut index: Map<(usize, Option<SpotNo>), usize> = Map::default();
    for pile in piles.iter().filter(|pile| of.is_none() || pile.type_id == of) {
        let weight = pile.weight.weight;
        let no_frames = Vec::new();
        let frames = code.walked(pile.stack).map_or(&no_frames, |w| &w.frames);
        let mut at = 0;
        grow(&mut nodes, at, 0, weight);
        for step in steps(scene, frames) {
            let next = nodes.len();
            let (place, folded) = match step {
                Step::Frame(place) => (Some(place), 0),
                Step::Runtime(frames) => (None, i128::from(frames) * i128::from(weight)),
            };
            let child = *index.entry((at, place.map(|place| code.spot(place)))).or_insert(next);
            if child == next {
                nodes.push(Node { spot: place, folded: 0, own: 0, total: 0, children: Vec::new() });
                if let Some(parent) = nodes.get_mut(at) {
                    parent.children.push(child);
                }
            }
            // The least place represents the function, as the order of arrival is arbitrary.
            if let Some(node) = nodes.get_mut(child) {
                node.folded = node.folded.saturating_add(folded);
                if let (Some(known), Some(place)) = (node.spot, place)
                    && place != known
                    && code.place(place) < code.place(known)
                {
                    node.spot = Some(place);
                }
            }
            grow(&mut nodes, child, 0, weight);
            at = child;
        }
        grow(&mut nodes, at, weight, 0);
    }
    written(scene, &nodes)
}

/// A step from the outermost frame of a stack to the leaf.
enum Step {
    Frame(PlaceNo),
    /// This number of frames of the runtime, and of what lies between them.
    Runtime(u32),
}

/// Least number of frames that are folded.
const FOLDED: usize = 3;

/// The frames of a stack from the outermost one. Runs of frames that are neither own code nor a dependency's are folded up to
/// their last frame of tokio's runtime, but not the leaf.
fn steps(scene: &Scene<'_>, frames: &[PlaceNo]) -> Vec<Step> {
    let code = &scene.names.code;
    let from_root: Vec<PlaceNo> = frames.iter().rev().take(DEEPEST).copied().collect();
    if scene.query.is_unfolded {
        return from_root.into_iter().map(Step::Frame).collect();
    }
    let origin = |no: PlaceNo| code.place(no).map_or(Origin::Unknown, |place| place.origin);
    let is_program = |no: PlaceNo| matches!(origin(no), Origin::Own | Origin::Dependency);
    let mut out = Vec::new();
    let mut rest = from_root.as_slice();
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|no| !is_program(**no)).count();
        let (runs, after) = rest.split_at(run);
        let foldable = if after.is_empty() { run.saturating_sub(1) } else { run };
        let last = runs.iter().take(foldable).rposition(|no| origin(*no) == Origin::Tokio).map_or(0, |at| at + 1);
        if last >= FOLDED {
            out.push(Step::Runtime(u32::try_from(last).unwrap_or(u32::MAX)));
            rest = rest.get(last..).unwrap_or_default();
            continue;
        }
        let whole = if run == 0 { std::slice::from_ref(first) } else { runs };
        out.extend(whole.iter().map(|no| Step::Frame(*no)));
        rest = rest.get(whole.len()..).unwrap_or_default();
    }
    out
}

fn grow(nodes: &mut [Node], at: usize, own: i64, total: i64) {
    if let Some(node) = nodes.get_mut(at) {
        node.own = node.own.saturating_add(own);
        node.total = node.total.saturating_add(total);
    }
}

/// The tree in preorder, the heaviest nodes of it.
fn written(scene: &Scene<'_>, nodes: &[Node]) -> Flame {
    let code = &scene.names.code;
    let place = |at: usize| nodes.get(at).and_then(|n| code.place(n.spot?));
    let kind = scene.query.flame_kind;
    let mut flame = Flame { kind, task_type: scene.type_ref(scene.query.flame_of), nodes: Vec::new(), left_out: 0 };
    let mut all: Vec<(FlameNode, i64)> = Vec::new();
    let mut stack = vec![(0_usize, 0_u32)];
    while let Some((at, depth)) = stack.pop() {
        let Some(node) = nodes.get(at) else { continue };
        let (function, file, origin) = match place(at) {
            Some(place) => (place.function.clone(), place.file.clone(), place.origin),
            None if node.folded > 0 => (Name::from(RUNTIME), None, Origin::Tokio),
            None => (Name::from(""), None, Origin::Unknown),
        };
        let Node { own, total, folded, .. } = *node;
        let whole = i128::from(total.max(1));
        let folded = u32::try_from((folded + whole / 2) / whole).unwrap_or(u32::MAX);
        all.push((FlameNode { function, file, origin, depth, own, total, folded }, total));
        let mut children = node.children.clone();
        children.sort_by(|a, b| {
            let total = |at: usize| nodes.get(at).map_or(0, |n| n.total);
            (total(*b), place(*a)).cmp(&(total(*a), place(*b)))
        });
        stack.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
    }
    // A parent weighs at least as much as its child and precedes it, so the kept nodes are a tree.
    let mut heaviest: Vec<usize> = (0..all.len()).collect();
    heaviest.sort_by_key(|at| (Reverse(all.get(*at).map_or(0, |(_, total)| *total)), *at));
    let mut is_kept = vec![false; all.len()];
    for at in heaviest.into_iter().take(MOST_FLAMES) {
        if let Some(kept) = is_kept.get_mut(at) {
            *kept = true;
        }
    }
    for ((node, _), kept) in all.into_iter().zip(is_kept) {
        if kept {
            flame.nodes.push(node);
        } else {
            flame.left_out = flame.left_out.saturating_add(node.own);
        }
    }
    flame
}
