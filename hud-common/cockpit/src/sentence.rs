//! Parts of a finding: names and code for its sentence, and its evidence.

use super::{Evidence, Place, TypeId, Value, scene::Scene};

/// A figure, with the threshold that it exceeds.
pub(super) fn evidence(what: &str, value: Value, threshold: Option<Value>) -> Evidence {
    Evidence { what: what.into(), value, threshold }
}

/// The name of a type of task for a sentence.
pub(super) fn name_of(scene: &Scene<'_>, id: Option<TypeId>) -> String {
    scene.type_ref(id).map_or_else(|| "a task of unknown type".to_string(), |t| t.name.to_string())
}

/// Code for a sentence: `function (file.rs:12)`, without the folders.
pub(super) fn code(place: &Place) -> String {
    let file = place.file.as_ref().map(|f| f.rsplit('/').next().unwrap_or(f).to_string());
    match (file, place.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", place.function),
        _ => place.function.to_string(),
    }
}
