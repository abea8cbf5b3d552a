//! The mark of a provider or app: a tile with its initials, in a colour that its id always gets. Our own, so nobody's trademark is copied.

use super::colour::Colour;

/// White text can be read on each of these.
const TILES: [Colour; 12] = [
    Colour([0xb4, 0x2b, 0x1f]),
    Colour([0xa2, 0x47, 0x0c]),
    Colour([0x85, 0x5a, 0x00]),
    Colour([0x5b, 0x69, 0x0b]),
    Colour([0x2a, 0x74, 0x34]),
    Colour([0x00, 0x73, 0x67]),
    Colour([0x0b, 0x6a, 0x8f]),
    Colour([0x1f, 0x5f, 0xbf]),
    Colour([0x4b, 0x50, 0xc4]),
    Colour([0x73, 0x44, 0xb8]),
    Colour([0x95, 0x36, 0x98]),
    Colour([0xab, 0x2c, 0x66]),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) initials: String,
    pub(super) tile: Colour,
    pub(super) ink: Colour,
}

impl Mark {
    pub(super) fn of_provider(id: &str, name: &str) -> Mark {
        // FNV-1a: the same id has the same colour in every version.
        let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        // The low bits of short ids alone are much alike.
        let picked = (hash ^ hash >> 11) as usize % TILES.len();
        Mark { initials: initials(name), tile: TILES[picked], ink: Colour::WHITE }
    }

    pub(super) fn of_app(name: &str, accent: Colour) -> Mark {
        Mark { initials: initials(name), tile: accent, ink: accent.ink() }
    }
}

/// The first letters of the first two words; of one word its first letter and its next capital, if it has one: `GH` of GitHub.
fn initials(name: &str) -> String {
    let mut words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let second = words.next().map_or_else(|| first.chars().skip(1).find(|c| c.is_uppercase()), |word| word.chars().next());
    let capitals = |letter: Option<char>| letter.into_iter().flat_map(char::to_uppercase);
    let all: String = capitals(first.chars().next()).chain(capitals(second)).take(2).collect();
    if all.is_empty() { "•".to_owned() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initials_are_taken_from_words_and_capitals() {
        for (name, expected) in [
            ("Google", "G"),
            ("Google Drive", "GD"),
            ("GitHub", "GH"),
            ("microsoft 365", "M3"),
            ("PrintPixie", "PP"),
            ("  (new) thing", "NT"),
            ("éclair", "É"),
            ("日本 語", "日語"),
            ("ß", "SS"),
            ("<>&\"'", "•"),
            ("", "•"),
        ] {
            assert_eq!(initials(name), expected, "{name}");
        }
    }

    #[test]
    fn initials_can_be_read_on_every_tile() {
        for tile in TILES {
            assert!(tile.contrast(Colour::WHITE) >= 4.5, "{tile}: {}", tile.contrast(Colour::WHITE));
        }
    }

    #[test]
    fn an_id_keeps_its_colour_whatever_it_is_called() {
        assert_eq!(Mark::of_provider("google", "Google").tile, Mark::of_provider("google", "Work").tile);
        assert_ne!(Mark::of_provider("google", "Google").tile, Mark::of_provider("github", "GitHub").tile);
    }
}
