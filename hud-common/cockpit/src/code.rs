//! Attribution: the places of a stack's frames, and the place to which the stack is attributed.
//!
//! A place is a function, a file and a line; a spot is a function and a file. Both have numbers, so that ranking thousands
//! of stacks compares no text. The numbers define no order: rankings use the names.

use hashbrown::HashMap;

use super::{Frame, FrameId, Name, Origin, Place, StackId, TypeId, entities::TaskType};

/// The number of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PlaceNo(u32);

/// The number of a function in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SpotNo(u32);

impl From<PlaceNo> for usize {
    fn from(PlaceNo(number): PlaceNo) -> Self {
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

impl From<SpotNo> for usize {
    fn from(SpotNo(number): SpotNo) -> Self {
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

/// A resolved stack.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    /// Its frames, from the leaf.
    pub(super) frames: Vec<PlaceNo>,
    /// Its places, each once.
    pub(super) places: Vec<PlaceNo>,
    /// Its spots, each once.
    pub(super) spots: Vec<SpotNo>,
    /// The frame to which it is attributed: the first own one from the leaf, else of a dependency or tokio, else the leaf.
    pub(super) blamed: Option<PlaceNo>,
    /// Whether that is own code.
    pub(super) is_own: bool,
    /// Whether the innermost task has called `block_in_place`.
    pub(super) is_in_place: bool,
    is_whole: bool,
}

/// Places and resolved stacks.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    places: Vec<(Place, SpotNo)>,
    numbers: HashMap<Place, PlaceNo>,
    spots: HashMap<(Name, Option<Name>), SpotNo>,
    /// By frame, once its module is known.
    of_frame: HashMap<FrameId, PlaceNo>,
    walked: HashMap<StackId, Walked>,
}

impl Code {
    pub(super) fn is_whole(&self, id: StackId) -> bool {
        self.walked.get(&id).is_some_and(|w| w.is_whole)
    }

    pub(super) fn forget(&mut self, id: StackId) {
        self.walked.remove(&id);
    }

    pub(super) fn walked(&self, id: Option<StackId>) -> Option<&Walked> {
        self.walked.get(&id?)
    }

    /// Number of places; there are at most as many spots.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn place(&self, number: PlaceNo) -> Option<&Place> {
        self.places.get(usize::try_from(number.0).ok()?).map(|(place, _)| place)
    }

    pub(super) fn spot(&self, number: PlaceNo) -> SpotNo {
        let at = usize::try_from(number.0).ok();
        at.and_then(|at| self.places.get(at)).map_or(SpotNo(u32::MAX), |(_, spot)| *spot)
    }

    /// The number of a place.
    pub(super) fn number(&mut self, place: Place) -> PlaceNo {
        if let Some(known) = self.numbers.get(&place) {
            return *known;
        }
        let next = SpotNo(u32::try_from(self.spots.len()).unwrap_or(u32::MAX));
        let spot = *self.spots.entry((place.function.clone(), place.file.clone())).or_insert(next);
        let number = PlaceNo(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        self.places.push((place.clone(), spot));
        self.numbers.insert(place, number);
        number
    }

    pub(super) fn add(
        &mut self,
        id: StackId,
        frame_ids: &[FrameId],
        frames: &HashMap<FrameId, Frame>,
        modules: &HashMap<i64, Name>,
    ) {
        let (mut own, mut near, mut is_whole) = (None, None, true);
        let (mut in_place, mut polled) = (None, None);
        let mut numbers = Vec::with_capacity(frame_ids.len());
        for (depth, frame_id) in frame_ids.iter().enumerate() {
            let Some(frame) = frames.get(frame_id) else {
                is_whole = false;
                continue;
            };
            let number = match self.of_frame.get(frame_id) {
                Some(known) => *known,
                None => {
                    let module = frame.module.and_then(|id| modules.get(&id));
                    let function = match (&frame.function, module) {
                        (Some(function), _) => function.clone(),
                        (None, Some(module)) => Name::from(format!("<{module}>")),
                        (None, None) => Name::from("<unknown>"),
                    };
                    let (file, line, origin) = (frame.file.clone(), frame.line, frame.origin);
                    let number = self.number(Place { function, file, line, origin });
                    if frame.function.is_some() || frame.module.is_none() || module.is_some() {
                        self.of_frame.insert(*frame_id, number);
                    } else {
                        is_whole = false;
                    }
                    number
                }
            };
            if let Some(function) = &frame.function {
                if frame.origin == Origin::Tokio {
                    in_place = in_place.or(function.contains("block_in_place").then_some(depth));
                    let of_task = function.strip_prefix("tokio::runtime::task::");
                    polled = polled.or(of_task.is_some_and(|rest| rest.contains("poll")).then_some(depth));
                }
                match frame.origin {
                    Origin::Own => own = own.or(Some(number)),
                    Origin::Dependency | Origin::Tokio => near = near.or(Some(number)),
                    _ => {}
                }
            }
            numbers.push(number);
        }
        let once = |mut all: Vec<u32>| {
            all.sort_unstable();
            all.dedup();
            all
        };
        let places = once(numbers.iter().map(|n| n.0).collect()).into_iter().map(PlaceNo).collect::<Vec<_>>();
        let spots = once(places.iter().map(|p| self.spot(*p).0).collect()).into_iter().map(SpotNo).collect();
        let blamed = own.or(near).or(numbers.first().copied());
        let is_in_place = in_place.is_some_and(|call| polled.is_none_or(|poll| call < poll));
        let is_own = own.is_some();
        self.walked.insert(id, Walked { frames: numbers, places, spots, blamed, is_own, is_in_place, is_whole });
    }

    /// The place to which a stack of a task of this type is attributed.
    pub(super) fn attribute(&mut self, stack: Option<StackId>, task_type: Option<(TypeId, &TaskType)>) -> PlaceNo {
        let (blamed, is_own) = match self.walked(stack) {
            Some(walked) => (walked.blamed, walked.is_own),
            None => (None, false),
        };
        let frame = blamed.and_then(|number| self.place(number)).cloned();
        let Some((_, task_type)) = task_type else {
            return match (blamed, frame) {
                (Some(number), Some(_)) => number,
                _ => self.number(Place {
                    function: "<no stack>".into(),
                    file: None,
                    line: None,
                    origin: Origin::Unknown,
                }),
            };
        };
        match (blamed, frame) {
            (Some(number), Some(frame)) if is_own => {
                if frame.line.is_some() || task_type.line.is_none() {
                    return number;
                }
                self.number(Place { file: task_type.file.clone(), line: task_type.line, ..frame })
            }
            _ => self.number(Place {
                function: task_type.name.clone(),
                file: task_type.file.clone(),
                line: task_type.line,
                origin: Origin::Own,
            }),
        }
    }
}
