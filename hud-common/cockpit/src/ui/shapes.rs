//! Symbols of a screen as shapes, as fonts draw them with gaps, in other widths, or not at all.

/// The shape of a symbol in its cell.
pub(super) struct Shape {
    /// Corners, in [`Shape::UNIT`]ths of the cell's width and height.
    pub(super) polygons: Vec<Vec<(i32, i32)>>,
    /// Opacity.
    pub(super) percent: u32,
    /// Whether it reaches both sides of its cell, so that neighbours join.
    pub(super) joins: bool,
}

impl Shape {
    /// Width and height of a cell.
    pub(super) const UNIT: i32 = 80;
}

fn rect(x: i32, y: i32, width: i32, height: i32) -> Vec<(i32, i32)> {
    vec![(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
}

/// The shape of a symbol, if it is to be drawn as one.
pub(super) fn shape(symbol: &str) -> Option<Shape> {
    const ALL: i32 = Shape::UNIT;
    const EIGHTH: i32 = ALL / 8;
    let mut chars = symbol.chars();
    let (Some(c), None) = (chars.next(), chars.next()) else { return None };
    let (polygons, percent, joins) = match c {
        '█' => (vec![rect(0, 0, ALL, ALL)], 100, true),
        '▓' => (vec![rect(0, 0, ALL, ALL)], 75, true),
        '▒' => (vec![rect(0, 0, ALL, ALL)], 50, true),
        '░' => (vec![rect(0, 0, ALL, ALL)], 25, true),
        '▁'..='▇' => {
            let eighths = i32::try_from(u32::from(c) - u32::from('▁') + 1).unwrap_or(8);
            (vec![rect(0, ALL - eighths * EIGHTH, ALL, eighths * EIGHTH)], 100, true)
        }
        '▉'..='▏' => {
            let eighths = 8 - i32::try_from(u32::from(c) - u32::from('█')).unwrap_or(0);
            (vec![rect(0, 0, eighths * EIGHTH, ALL)], 100, false)
        }
        '▔' => (vec![rect(0, 0, ALL, EIGHTH)], 100, true),
        '─' => (vec![rect(0, 38, ALL, 4)], 100, true),
        '│' => (vec![rect(36, 0, 8, ALL)], 100, false),
        '‖' => (vec![rect(18, 22, 14, 36), rect(48, 22, 14, 36)], 100, false),
        '■' => (vec![rect(8, 24, 64, 32)], 100, false),
        '▶' => (vec![vec![(8, 22), (74, 40), (8, 58)]], 100, false),
        '▸' => (vec![vec![(16, 27), (66, 40), (16, 53)]], 100, false),
        '▲' => (vec![vec![(40, 22), (74, 58), (6, 58)]], 100, false),
        '◆' => (vec![vec![(40, 20), (76, 40), (40, 60), (4, 40)]], 100, false),
        '●' => {
            // A circle by twelve corners; a cell is twice as high as wide.
            let x = [72, 68, 56, 40, 24, 12, 8, 12, 24, 40, 56, 68];
            let y = [40, 48, 54, 56, 54, 48, 40, 32, 26, 24, 26, 32];
            (vec![x.into_iter().zip(y).collect()], 100, false)
        }
        '✓' => (vec![vec![(12, 42), (20, 38), (32, 50), (64, 22), (72, 26), (34, 60)]], 100, false),
        '≥' => {
            (vec![vec![(10, 20), (70, 36), (10, 52), (10, 46), (52, 36), (10, 26)], rect(10, 58, 60, 6)], 100, false)
        }
        '…' => (vec![rect(6, 54, 14, 7), rect(33, 54, 14, 7), rect(60, 54, 14, 7)], 100, false),
        '→' => (vec![rect(4, 38, 50, 4), vec![(46, 30), (76, 40), (46, 50)]], 100, false),
        _ => return None,
    };
    Some(Shape { polygons, percent, joins })
}
