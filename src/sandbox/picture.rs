//! Draws the sandbox's photos: a sky, a sun and ridges, the same for the same seed, as real JPEGs.

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

/// JPEG quality of every picture drawn here.
const QUALITY: u8 = 85;
/// Ridges from the far one to the near one, or bands of waves where the picture shows the sea.
const RIDGES: usize = 5;

type Rgb = [f32; 3];

/// Sky at the top, sky at the horizon, the near ridge and the sun.
const PALETTES: [[Rgb; 4]; 6] = [
    [[46.0, 92.0, 160.0], [255.0, 196.0, 140.0], [28.0, 52.0, 66.0], [255.0, 240.0, 205.0]],
    [[86.0, 156.0, 222.0], [226.0, 240.0, 250.0], [34.0, 84.0, 58.0], [255.0, 252.0, 232.0]],
    [[40.0, 30.0, 84.0], [244.0, 120.0, 112.0], [26.0, 18.0, 46.0], [255.0, 206.0, 150.0]],
    [[18.0, 28.0, 62.0], [96.0, 124.0, 170.0], [10.0, 18.0, 34.0], [236.0, 240.0, 255.0]],
    [[110.0, 190.0, 196.0], [250.0, 232.0, 196.0], [22.0, 88.0, 104.0], [255.0, 246.0, 214.0]],
    [[150.0, 170.0, 190.0], [240.0, 226.0, 222.0], [78.0, 62.0, 70.0], [255.0, 236.0, 224.0]],
];

/// A JPEG of `width` by `height` that depends on `seed` alone; a smaller size shows the same scene.
pub(super) fn draw(seed: u64, width: u16, height: u16) -> Result<Vec<u8>, EncodingError> {
    let pixels = Scene::of(seed).paint(usize::from(width), usize::from(height));
    let mut jpeg = Vec::with_capacity(pixels.len() / 8);
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.encode(&pixels, width, height, ColorType::Rgb)?;
    Ok(jpeg)
}

/// The same picture with `comment` in a comment segment after the start of the image (T.81 §B.2.4.5), so that its bytes say whose it is.
pub(super) fn with_comment(jpeg: &[u8], comment: &str) -> Vec<u8> {
    let comment = &comment.as_bytes()[..comment.len().min(1024)];
    let (start, rest) = jpeg.split_at(jpeg.len().min(2));
    let mut whole = Vec::with_capacity(commented_len(jpeg.len(), comment.len()));
    whole.extend_from_slice(start);
    whole.extend_from_slice(&[0xFF, 0xFE]);
    whole.extend_from_slice(&(comment.len() as u16 + 2).to_be_bytes());
    whole.extend_from_slice(comment);
    whole.extend_from_slice(rest);
    whole
}

/// How long [`with_comment`] makes a picture.
pub(super) fn commented_len(jpeg: usize, comment: usize) -> usize {
    jpeg + 4 + comment.min(1024)
}

/// Width and height as the frame header of a JPEG says them (ITU-T T.81 §B.2.2), or `None` where the bytes are no whole JPEG.
pub(super) fn dimensions(jpeg: &[u8]) -> Option<(u16, u16)> {
    if !jpeg.starts_with(&[0xFF, 0xD8]) || !jpeg.ends_with(&[0xFF, 0xD9]) {
        return None;
    }
    let mut at = 2;
    loop {
        let [0xFF, marker, high, low] = *jpeg.get(at..at + 4)? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        // SOF0 to SOF15, without DHT (C4), JPG (C8) and DAC (CC), which share their range.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
            let [_, h1, h0, w1, w0] = *jpeg.get(at + 4..at + 9)? else { return None };
            return Some((u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])));
        }
        if marker == 0xDA || length < 2 {
            return None;
        }
        at += 2 + length;
    }
}

/// Amplitude, frequency and phase.
type Wave = (f32, f32, f32);
/// The middle height and what swings around it.
type Ridge = (f32, [Wave; 3]);

struct Scene {
    palette: &'static [Rgb; 4],
    sun: (f32, f32, f32),
    ridges: [Ridge; RIDGES],
    grain: u32,
}

impl Scene {
    fn of(seed: u64) -> Self {
        let mut dice = Dice(seed | 1);
        let palette = &PALETTES[dice.below(PALETTES.len())];
        let sun = (0.15 + 0.7 * dice.roll(), 0.14 + 0.26 * dice.roll(), 0.035 + 0.03 * dice.roll());
        let sea = dice.below(3) == 0;
        let ridges = std::array::from_fn(|ridge| {
            let middle = 0.48 + 0.11 * ridge as f32 + 0.04 * dice.roll();
            let (swing, often) = if sea { (0.011, 3.0) } else { (0.055, 1.0) };
            let wave = |dice: &mut Dice, size: f32, waves: f32| {
                (swing * size * (0.6 + dice.roll()), often * waves * (0.7 + 0.6 * dice.roll()), std::f32::consts::TAU * dice.roll())
            };
            (middle, [wave(&mut dice, 1.0, 5.0), wave(&mut dice, 0.45, 13.0), wave(&mut dice, 0.16, 41.0)])
        });
        Scene { palette, sun, ridges, grain: (seed >> 16) as u32 | 1 }
    }

    fn paint(&self, width: usize, height: usize) -> Vec<u8> {
        let tops = self.tops(width, height);
        let colours: [Rgb; RIDGES] = std::array::from_fn(|ridge| self.ridge_colour(ridge));
        let mut pixels = vec![0u8; width * height * 3];
        let mut grain = self.grain;
        for (y, row) in pixels.chunks_exact_mut(width * 3).enumerate() {
            let sky = self.sky_colour(y as f32 / height as f32);
            for (pixel, tops) in row.chunks_exact_mut(3).zip(&tops) {
                let front = tops.iter().rposition(|top| y >= *top);
                let colour = front.map_or(sky, |ridge| colours[ridge]);
                // A little grain keeps the gradients from showing bands.
                grain ^= grain << 13;
                grain ^= grain >> 17;
                grain ^= grain << 5;
                let grain = (grain & 3) as f32 * if front.is_some() { 2.0 } else { 0.7 };
                pixel[0] = (colour[0] + grain) as u8;
                pixel[1] = (colour[1] + grain) as u8;
                pixel[2] = (colour[2] + grain) as u8;
            }
        }
        self.paint_sun(&mut pixels, &tops, width, height);
        pixels
    }

    /// For each column, the first row of each ridge.
    fn tops(&self, width: usize, height: usize) -> Vec<[usize; RIDGES]> {
        let column = |x: usize| {
            let across = x as f32 / width as f32;
            std::array::from_fn(|ridge| {
                let (middle, waves) = self.ridges[ridge];
                let top = waves.iter().fold(middle, |top, (size, often, phase)| top + size * (often * across + phase).sin());
                (top * height as f32) as usize
            })
        };
        (0..width).map(column).collect()
    }

    fn sky_colour(&self, down: f32) -> Rgb {
        mix(self.palette[0], self.palette[1], (down / 0.62).min(1.0))
    }

    /// Far ridges fade into the horizon, as haze makes them.
    fn ridge_colour(&self, ridge: usize) -> Rgb {
        mix(self.palette[1], self.palette[2], (0.25 + 0.75 * ridge as f32 / (RIDGES - 1) as f32).min(1.0))
    }

    fn paint_sun(&self, pixels: &mut [u8], tops: &[[usize; RIDGES]], width: usize, height: usize) {
        let (across, down, size) = self.sun;
        let (cx, cy, radius) = (across * width as f32, down * height as f32, size * width as f32);
        let reach = radius * 3.0;
        let span = |centre: f32, end: usize| ((centre - reach).max(0.0) as usize)..((centre + reach) as usize).min(end);
        for y in span(cy, height) {
            for x in span(cx, width) {
                if tops[x].iter().any(|top| y >= *top) {
                    continue;
                }
                let away = (x as f32 - cx).hypot(y as f32 - cy);
                let light = if away < radius { 1.0 } else { (1.0 - (away - radius) / (reach - radius)).max(0.0).powi(2) * 0.55 };
                let at = (y * width + x) * 3;
                for (byte, sun) in pixels[at..at + 3].iter_mut().zip(self.palette[3]) {
                    let under = f32::from(*byte);
                    *byte = (under + (sun - under) * light) as u8;
                }
            }
        }
    }
}

fn mix(from: Rgb, to: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|part| from[part] + (to[part] - from[part]) * share)
}

/// xorshift64: pictures want the same numbers every time, not good ones.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 up to, but not including, 1.
    fn roll(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() * end as f32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_whole_jpegs_of_the_size_asked_for() {
        for (width, height) in [(160, 107), (320, 214)] {
            let jpeg = draw(7, width, height).expect("drawn");
            assert_eq!(dimensions(&jpeg), Some((width, height)));
        }
    }

    #[test]
    fn the_seed_alone_makes_the_picture() {
        let picture = |seed| draw(seed, 160, 107).expect("drawn");
        assert_eq!(picture(99), picture(99));
        assert_ne!(picture(99), picture(0x9988_7766_5544_3322));
    }

    #[test]
    fn a_comment_leaves_the_picture_whole() {
        let plain = draw(7, 16, 16).expect("drawn");
        let marked = with_comment(&plain, "megan");
        assert_eq!(marked.len(), commented_len(plain.len(), 5));
        assert_eq!(dimensions(&marked), Some((16, 16)));
        assert!(marked.windows(5).any(|window| window == b"megan"));
    }

    #[test]
    fn tells_what_is_no_jpeg() {
        let whole = draw(7, 16, 16).expect("drawn");
        for not in [&b""[..], b"\xFF\xD8\xFF\xD9", b"PNG", &whole[..whole.len() - 1], &whole[2..]] {
            assert_eq!(dimensions(not), None);
        }
    }
}
