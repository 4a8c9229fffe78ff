//! A screen as PNG: text in an embedded font, symbols as shapes. Characters that the font lacks (it has Latin) are empty
//! boxes; an SVG has all.

use std::{collections::BTreeMap, io};

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::{
    shapes::{Shape, shape},
    shot::{Rgb, Shot, mixed},
};

const HEIGHT: RasterHeight = RasterHeight::Size20;
const HIGH: usize = HEIGHT.val();
const WIDE: usize = get_raster_width(FontWeight::Regular, HEIGHT);
/// Number of sample points per side of a pixel of a shape.
const FINE: i32 = 4;

struct Picture {
    width: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn blend(&mut self, x: usize, y: usize, color: Rgb, percent: u32) {
        let at = (y * self.width + x) * 3;
        if let Some(pixel) = self.pixels.get_mut(at..at + 3)
            && let Ok(under) = Rgb::try_from(&*pixel)
            && x < self.width
        {
            pixel.copy_from_slice(&mixed(color, under, percent));
        }
    }

    fn fill(&mut self, (x, y): (usize, usize), wide: usize, color: Rgb) {
        for dy in 0..HIGH {
            for dx in 0..wide {
                self.blend(x + dx, y + dy, color, 100);
            }
        }
    }

    fn glyph(&mut self, (x, y): (usize, usize), c: char, is_bold: bool, color: Rgb) -> bool {
        let weight = if is_bold { FontWeight::Bold } else { FontWeight::Regular };
        let Some(raster) = get_raster(c, weight, HEIGHT) else { return false };
        for (dy, row) in raster.raster().iter().enumerate() {
            for (dx, strength) in row.iter().enumerate().take(WIDE) {
                self.blend(x + dx, y + dy, color, u32::from(*strength) * 100 / 255);
            }
        }
        true
    }

    fn shape(&mut self, (x, y): (usize, usize), covered: &[u32], color: Rgb) {
        for (at, percent) in covered.iter().enumerate().filter(|(_, percent)| **percent > 0) {
            self.blend(x + at % WIDE, y + at / WIDE, color, *percent);
        }
    }

    /// A box, for characters without a glyph.
    fn unknown(&mut self, (x, y): (usize, usize), wide: usize, color: Rgb) {
        for dy in 4..HIGH - 4 {
            for dx in 1..wide.saturating_sub(1) {
                if dy == 4 || dy == HIGH - 5 || dx == 1 || dx + 2 == wide {
                    self.blend(x + dx, y + dy, color, 60);
                }
            }
        }
    }
}

/// Coverage of each pixel of a cell by a shape, in percent.
fn covered(of: &Shape) -> Vec<u32> {
    let unit = |at: usize, cells: usize, fine: i32| {
        // The middle of a part of a pixel, in units of the shape.
        let at = i32::try_from(at).unwrap_or(0) * 2 * FINE + 2 * fine + 1;
        at * Shape::UNIT / (i32::try_from(cells).unwrap_or(1) * 2 * FINE)
    };
    let pixel = |at: usize| {
        let points = (0..FINE).flat_map(|fy| (0..FINE).map(move |fx| (fx, fy)));
        let inside = points.filter(|(fx, fy)| {
            let point = (unit(at % WIDE, WIDE, *fx), unit(at / WIDE, HIGH, *fy));
            of.polygons.iter().any(|polygon| holds(polygon, point))
        });
        u32::try_from(inside.count()).unwrap_or(0) * of.percent / (FINE * FINE).unsigned_abs()
    };
    (0..WIDE * HIGH).map(pixel).collect()
}

/// Whether a polygon contains a point, by the edges to its right.
fn holds(polygon: &[(i32, i32)], (x, y): (i32, i32)) -> bool {
    let ends = polygon.iter().skip(1).chain(polygon.first());
    let crossed = polygon.iter().zip(ends).filter(|((x0, y0), (x1, y1))| {
        (*y0 > y) != (*y1 > y)
            && i64::from(x - x0) * i64::from((y1 - y0).abs()) < {
                let sign = if y1 > y0 { 1 } else { -1 };
                i64::from(x1 - x0) * i64::from(y - y0) * sign
            }
    });
    crossed.count() % 2 == 1
}

impl Shot {
    /// The bytes of a PNG.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        let area = self.buffer.area;
        let (width, height) = (usize::from(area.width) * WIDE, usize::from(area.height) * HIGH);
        let mut picture = Picture { width, pixels: self.ground.repeat(width * height) };
        // Each symbol is rendered once.
        let mut shapes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for y in self.rows() {
            for (x, cell) in self.cells(y) {
                let ink = self.ink_of(cell);
                let at = (usize::from(x) * WIDE, usize::from(y) * HIGH);
                let wide = unicode_width::UnicodeWidthStr::width(cell.symbol()).max(1) * WIDE;
                if ink.back != self.ground {
                    picture.fill(at, wide, ink.back);
                }
                let symbol = cell.symbol();
                if !shapes.contains_key(symbol)
                    && let Some(of) = shape(symbol)
                {
                    shapes.insert(symbol, covered(&of));
                }
                if let Some(covered) = shapes.get(symbol) {
                    picture.shape(at, covered, ink.fore);
                    continue;
                }
                let c = cell.symbol().chars().next().unwrap_or(' ');
                if c != ' ' && !picture.glyph(at, c, ink.is_bold, ink.fore) {
                    picture.unknown(at, wide, ink.fore);
                }
            }
        }
        let mut bytes = vec![];
        let side = |n: usize| u32::try_from(n).map_err(io::Error::other);
        let mut encoder = png::Encoder::new(&mut bytes, side(width)?, side(height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let failed = |e: png::EncodingError| io::Error::other(format!("cannot write PNG: {e}"));
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&picture.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }
}
