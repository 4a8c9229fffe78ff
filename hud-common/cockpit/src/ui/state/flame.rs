//! The selected node of the flame graph, as a path of functions: the tree changes with each snapshot.

use crate::{Flame, FlameKind, Name, TypeId};

/// Direct children of a node, by their places.
pub(in crate::ui) fn children(flame: &Flame, node: usize) -> Vec<usize> {
    let Some(depth) = flame.nodes.get(node).map(|node| node.depth) else { return Vec::new() };
    let below = flame.nodes.iter().enumerate().skip(node + 1).take_while(|(_, below)| below.depth > depth);
    below.filter(|(_, below)| below.depth == depth.saturating_add(1)).map(|(at, _)| at).collect()
}

/// The node that a path of functions leads to, or as far as it leads: the tree may have changed since it was chosen.
pub(in crate::ui) fn find(flame: &Flame, path: &[Name]) -> usize {
    let mut node = 0;
    for function in path {
        let next = children(flame, node)
            .into_iter()
            .find(|child| flame.nodes.get(*child).is_some_and(|child| child.function == *function));
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

/// The path of functions to a node, without the root.
pub(in crate::ui) fn path(flame: &Flame, node: usize) -> Vec<Name> {
    let mut out = Vec::new();
    let mut wanted = flame.nodes.get(node).map_or(0, |node| node.depth);
    for node in flame.nodes.iter().take(node.saturating_add(1)).rev() {
        if node.depth == wanted && wanted > 0 {
            out.push(node.function.clone());
            wanted -= 1;
        }
    }
    out.reverse();
    out
}

/// The type of task whose flame graph is shown, the selected node and the zoom.
#[derive(Clone, Debug, Default)]
pub(super) struct FlameCursor {
    kind: FlameKind,
    is_unfolded: bool,
    task_type: Option<TypeId>,
    path: Vec<Name>,
    /// Length of the path to the node that fills the width.
    zoom: usize,
}

impl FlameCursor {
    pub(super) fn task_type(&self) -> Option<TypeId> {
        self.task_type
    }

    pub(super) fn path(&self) -> &[Name] {
        &self.path
    }

    pub(super) fn zoom(&self) -> usize {
        self.zoom.min(self.path.len())
    }

    pub(super) fn show(&mut self, task_type: Option<TypeId>) {
        *self = FlameCursor { kind: self.kind, is_unfolded: self.is_unfolded, task_type, ..FlameCursor::default() };
    }

    pub(super) fn kind(&self) -> FlameKind {
        self.kind
    }

    pub(super) fn is_unfolded(&self) -> bool {
        self.is_unfolded
    }

    /// The next kind of time.
    pub(super) fn next_kind(&mut self) {
        self.kind = match self.kind {
            FlameKind::Cpu => FlameKind::OffCpu,
            FlameKind::OffCpu => FlameKind::Cpu,
        };
        self.show(self.task_type);
    }

    /// Shows the frames of the runtime, or one node for them.
    pub(super) fn fold(&mut self) {
        self.is_unfolded = !self.is_unfolded;
        self.show(self.task_type);
    }

    /// The next of these types, then all.
    pub(super) fn show_next(&mut self, types: &[TypeId]) {
        let next = match self.task_type {
            None => types.first().copied(),
            Some(of) => types.iter().position(|id| *id == of).and_then(|at| types.get(at + 1)).copied(),
        };
        self.show(next);
    }

    /// Zooms to the selected node.
    pub(super) fn zoom_in(&mut self) {
        self.zoom = self.path.len();
    }

    /// Zooms out by one level. Returns `false` if the whole tree is shown.
    pub(super) fn zoom_out(&mut self) -> bool {
        if self.zoom == 0 {
            return false;
        }
        self.zoom -= 1;
        self.path.truncate(self.zoom);
        true
    }

    /// Selects a node; zooms to it if it is selected already.
    pub(super) fn click(&mut self, flame: &Flame, node: usize) {
        let path = path(flame, node);
        if path == self.path {
            self.zoom = path.len();
        } else {
            self.zoom = self.zoom.min(path.len());
            self.path = path;
        }
    }

    /// To callers (up) or to the largest callee (down).
    pub(super) fn vertical(&mut self, by: isize, flame: &Flame) {
        for _ in 0..by.unsigned_abs().min(64) {
            if by < 0 {
                if self.path.len() > self.zoom {
                    self.path.pop();
                } else if self.zoom > 0 {
                    self.zoom -= 1;
                    self.path.pop();
                }
            } else {
                let node = find(flame, &self.path);
                let Some(child) = children(flame, node).first().copied() else { return };
                if let Some(child) = flame.nodes.get(child) {
                    self.path.push(child.function.clone());
                }
            }
        }
    }

    /// To the neighbours that have the same caller.
    pub(super) fn horizontal(&mut self, by: isize, flame: &Flame) {
        if self.path.len() <= self.zoom {
            return;
        }
        let here = find(flame, &self.path);
        let Some((_, above)) = self.path.split_last() else { return };
        let siblings = children(flame, find(flame, above));
        let Some(at) = siblings.iter().position(|node| *node == here) else { return };
        let to = at.saturating_add_signed(by).min(siblings.len().saturating_sub(1));
        if let (Some(node), Some(last)) =
            (siblings.get(to).and_then(|node| flame.nodes.get(*node)), self.path.last_mut())
        {
            *last = node.function.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlameNode, Origin};

    fn node(function: &str, depth: u32, total: i64) -> FlameNode {
        FlameNode { function: function.into(), file: None, origin: Origin::Own, depth, own: 0, total, folded: 0 }
    }

    #[test]
    fn paths_lead_to_their_nodes() {
        let nodes =
            vec![node("", 0, 10), node("a", 1, 6), node("c", 2, 6), node("b", 1, 4), node("c", 2, 3), node("d", 2, 1)];
        let flame = Flame { nodes, ..Flame::default() };
        assert_eq!(children(&flame, 0), [1, 3]);
        for at in 0..6 {
            assert_eq!(find(&flame, &path(&flame, at)), at);
        }
        assert_eq!(find(&flame, &["b".into(), "gone".into()]), 3);
    }
}
