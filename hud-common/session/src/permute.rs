//! Copies the rows of a column that is split over batches into the order of the segment.

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray as _};

/// The values of the parts of a column, if all have the type `T`.
pub(super) fn slices<'a, T: ArrowPrimitiveType>(parts: &[&'a ArrayRef]) -> Option<Vec<&'a [T::Native]>> {
    parts.iter().map(|part| part.as_primitive_opt::<T>().map(|values| values.values().as_ref())).collect()
}

/// Appends the rows of `parts` to `out`, in the order of `places` if there is one. If `valid` is not empty, rows that are not
/// valid are skipped.
pub(super) fn arrange<T: Copy + Default, U>(
    parts: &[&[T]],
    places: Option<&[u32]>,
    valid: &[bool],
    as_value: impl Fn(T) -> U,
    out: &mut Vec<U>,
) {
    let mut valid = valid.iter();
    match places {
        None if valid.len() == 0 => parts.iter().for_each(|part| out.extend(part.iter().map(|value| as_value(*value)))),
        None => {
            let there = parts.iter().flat_map(|part| part.iter()).zip(valid).filter(|(_, valid)| **valid);
            out.extend(there.map(|(value, _)| as_value(*value)));
        }
        Some(places) => {
            let mut cursor = Cursor::over(parts);
            if valid.len() == 0 {
                out.extend(places.iter().map(|place| as_value(cursor.at(*place))));
            } else {
                let there = places.iter().filter(|_| valid.next().copied().unwrap_or_default());
                out.extend(there.map(|place| as_value(cursor.at(*place))));
            }
        }
    }
}

/// Finds rows in the parts of a column. Most lie in the same part as the previous one.
struct Cursor<'a, T> {
    parts: &'a [&'a [T]],
    ends: Vec<usize>,
    part: &'a [T],
    first: usize,
}

impl<'a, T: Copy + Default> Cursor<'a, T> {
    fn over(parts: &'a [&'a [T]]) -> Self {
        let mut end = 0;
        let ends = parts.iter().map(|part| (end += part.len(), end).1).collect();
        Cursor { parts, ends, part: &[], first: 0 }
    }

    #[inline]
    fn at(&mut self, place: u32) -> T {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        match self.part.get(place.wrapping_sub(self.first)) {
            Some(value) => *value,
            None => self.seek(place),
        }
    }

    #[cold]
    fn seek(&mut self, place: usize) -> T {
        let at = self.ends.partition_point(|end| *end <= place);
        if let (Some(part), Some(end)) = (self.parts.get(at), self.ends.get(at)) {
            (self.part, self.first) = (part, end - part.len());
        }
        self.part.get(place.wrapping_sub(self.first)).copied().unwrap_or_default()
    }
}
