//! The encodings of integers in Parquet pages that segments use.

use parquet::basic::Type;

/// Values per block of deltas, and per miniblock. Each miniblock has its own bit width.
const BLOCK: usize = 128;
const PART: usize = 32;

/// A boolean `count` times, as bits.
pub(super) fn bits(set: bool, count: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + count / 8, if set { 0xff } else { 0 });
    if !count.is_multiple_of(8) {
        out.push(if set { (1 << (count % 8)) - 1 } else { 0 });
    }
}

/// PLAIN: little endian, booleans as bits.
pub(super) fn plain(values: &[i64], physical: Type, out: &mut Vec<u8>) {
    match physical {
        Type::INT64 => {
            let start = out.len();
            out.resize(start + values.len() * 8, 0);
            let places = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<8>().0;
            places.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
        }
        Type::BOOLEAN => {
            let mut bits = Bits::default();
            values.iter().for_each(|value| bits.push(u64::from(*value != 0), 1, out));
            bits.flush(out);
        }
        // INT32 values fit.
        _ => {
            let start = out.len();
            out.resize(start + values.len() * 4, 0);
            let places = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<4>().0;
            places.iter_mut().zip(values).for_each(|(to, value)| {
                let [a, b, c, d, ..] = value.to_le_bytes();
                *to = [a, b, c, d];
            });
        }
    }
}

/// RLE: integers of `width` bits as runs and as packed groups of eight.
pub(super) fn hybrid(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    let same = |group: &[u32]| group.first().copied().filter(|first| group.iter().all(|n| n == first));
    // A run takes some four bytes, including the header of the next part; packed, a group takes `width` bytes.
    let least = 1 + 4 / usize::from(width.max(1));
    let mut rest = numbers;
    let mut packed = 0;
    while let Some(groups) = rest.get(packed * 8..).filter(|groups| !groups.is_empty()) {
        let first = groups.get(..8).and_then(same);
        let run =
            first.map_or(0, |first| groups.chunks_exact(8).take_while(|group| same(group) == Some(first)).count());
        match first {
            Some(first) if run >= least || width == 0 => {
                let (before, after) = rest.split_at_checked(packed * 8).unwrap_or((rest, &[]));
                pack(before, width, out);
                varint((run as u64 * 8) << 1, out);
                out.extend(first.to_le_bytes().into_iter().take(usize::from(width.div_ceil(8))));
                rest = after.get(run * 8..).unwrap_or_default();
                packed = 0;
            }
            _ => packed += run.max(1),
        }
    }
    pack(rest, width, out);
}

/// Packed groups of eight; the last is padded.
fn pack(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let groups = numbers.len().div_ceil(8);
    varint((groups as u64) << 1 | 1, out);
    let mut bits = Bits::default();
    numbers.iter().for_each(|number| bits.push((*number).into(), width, out));
    (numbers.len()..groups * 8).for_each(|_| bits.push(0, width, out));
    bits.flush(out);
}

/// DELTA_BINARY_PACKED. Each miniblock of 32 values has the width of its largest, so an outlier widens only its own.
pub(super) fn deltas(values: &[i64], out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint((BLOCK / PART) as u64, out);
    varint(values.len() as u64, out);
    let Some((&first, rest)) = values.split_first() else { return varint(0, out) };
    varint(zigzag(first), out);
    let mut last = first;
    for block in rest.chunks(BLOCK) {
        let mut buffer = [0_i64; BLOCK];
        for (delta, &value) in buffer.iter_mut().zip(block) {
            *delta = value.wrapping_sub(last);
            last = value;
        }
        let deltas = buffer.get_mut(..block.len()).unwrap_or_default();
        let least = deltas.iter().copied().min().unwrap_or(0);
        varint(zigzag(least), out);
        deltas.iter_mut().for_each(|delta| *delta = delta.wrapping_sub(least));
        let widths = buffer.chunks(PART).map(|part| width(part.iter().fold(0, |all, d| all | d.cast_unsigned())));
        let widths: [u8; BLOCK / PART] = {
            let mut all = [0; BLOCK / PART];
            all.iter_mut().zip(widths).for_each(|(to, width)| *to = width);
            all
        };
        out.extend_from_slice(&widths);
        let parts = block.len().div_ceil(PART);
        for (part, width) in buffer.chunks(PART).zip(widths).take(parts) {
            let mut bits = Bits::default();
            part.iter().for_each(|delta| bits.push(delta.cast_unsigned(), width, out));
            bits.flush(out);
        }
    }
}

/// Packs numbers into bytes, the lowest bits first.
#[derive(Default)]
struct Bits {
    bits: u64,
    len: u32,
}

impl Bits {
    /// No bit of `number` past `width` is set.
    #[inline]
    fn push(&mut self, number: u64, width: u8, out: &mut Vec<u8>) {
        self.bits |= number << self.len;
        let len = self.len + u32::from(width);
        if len < 64 {
            self.len = len;
            return;
        }
        out.extend_from_slice(&self.bits.to_le_bytes());
        self.bits = number.checked_shr(64 - self.len).unwrap_or(0);
        self.len = len - 64;
    }

    fn flush(self, out: &mut Vec<u8>) {
        let bytes = usize::try_from(self.len.div_ceil(8)).unwrap_or(0);
        out.extend(self.bits.to_le_bytes().into_iter().take(bytes));
    }
}

/// Bits of a number.
pub(super) fn width(number: u64) -> u8 {
    u8::try_from(64 - number.leading_zeros()).unwrap_or(64)
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
