//! Colours as WCAG 2.2 measures them, so that text on the operator's accent can always be read.

use std::fmt;

/// An opaque sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour(pub(super) [u8; 3]);

impl Colour {
    pub(super) const WHITE: Colour = Colour([255, 255, 255]);
    pub(super) const BLACK: Colour = Colour([0, 0, 0]);

    /// `#rgb` or `#rrggbb`.
    pub(super) fn parse(text: &str) -> Option<Colour> {
        let digits: Vec<u8> = text.strip_prefix('#')?.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
        match digits[..] {
            [r, g, b] => Some(Colour([r * 17, g * 17, b * 17])),
            [r, r0, g, g0, b, b0] => Some(Colour([r * 16 + r0, g * 16 + g0, b * 16 + b0])),
            _ => None,
        }
    }

    /// Black or white, whichever is easier to read on this colour. The better of the two is never below 4.5:1, the least for text (WCAG AA):
    /// where they are even, both reach √21 = 4.58.
    pub(super) fn ink(self) -> Colour {
        if self.contrast(Colour::WHITE) >= self.contrast(Colour::BLACK) { Colour::WHITE } else { Colour::BLACK }
    }

    /// The contrast ratio (WCAG 2.2, "contrast ratio"), 1 to 21.
    pub(super) fn contrast(self, other: Colour) -> f64 {
        let (a, b) = (self.luminance() + 0.05, other.luminance() + 0.05);
        if a > b { a / b } else { b / a }
    }

    /// WCAG 2.2, "relative luminance".
    fn luminance(self) -> f64 {
        let [r, g, b] = self.0.map(|channel| {
            let part = f64::from(channel) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Colour([r, g, b]) = self;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_colours() {
        for (text, expected) in [
            ("#1a73e8", Some("#1a73e8")),
            ("#FA0", Some("#ffaa00")),
            ("1a73e8", None),
            ("#1a73e", None),
            ("#1a73e8ff", None),
            ("#12345é", None),
            ("", None),
        ] {
            assert_eq!(Colour::parse(text).map(|colour| colour.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn measures_contrast_as_wcag_does() {
        assert!((Colour::WHITE.contrast(Colour::BLACK) - 21.0).abs() < 1e-9);
        let grey = Colour([0x76, 0x76, 0x76]);
        assert!((grey.contrast(Colour::WHITE) - 4.54).abs() < 0.01, "the well-known lightest grey that passes on white");
    }

    #[test]
    fn text_can_be_read_on_every_colour() {
        // Every 17th value of each channel: all of `#rgb`.
        for rgb in 0..4096_u32 {
            let channel = |shift: u32| u8::try_from(rgb >> shift & 15).expect("four bits") * 17;
            let colour = Colour([channel(8), channel(4), channel(0)]);
            assert!(colour.contrast(colour.ink()) >= 4.5, "{colour}");
        }
    }
}
