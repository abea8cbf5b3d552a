//! What the emulated providers keep: two photos for each of two users at each of eight providers.

/// One photo, wherever it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// As the provider itself writes it.
    pub id: String,
    pub name: String,
    pub full: Vec<u8>,
    pub thumbnail: Vec<u8>,
}

pub const USERS: [&str; 2] = ["megan", "alex"];

/// The providers as the routes call them.
pub const PROVIDERS: [&str; 8] = ["google", "google-photos", "onedrive", "dropbox", "box", "flickr", "smugmug", "icloud"];

/// A user's token at a provider.
pub fn token(provider: &str, user: &str) -> String {
    format!("{provider}-token-of-{user}")
}

/// Whose token it is.
pub fn owner(provider: &str, given: &str) -> Option<&'static str> {
    USERS.into_iter().find(|user| given == token(provider, user))
}

pub fn photos(provider: &str, user: &str) -> Vec<Photo> {
    (0..2).map(|number| photo(provider, user, number)).collect()
}

pub fn photo(provider: &str, user: &str, number: usize) -> Photo {
    // Each in the provider's own kind of id.
    let id = match provider {
        "google" => format!("1BxiMVs0XRA5-{user}_{number}"),
        "google-photos" => format!("AF1QipN-{user}{number}"),
        "onedrive" => format!("4F2A9C10D7{user}!{number}"),
        "dropbox" => format!("id:a4ayc_80_{user}{number}"),
        "smugmug" => format!("i{user}{number}"),
        "icloud" => format!("Photo/{user} & \"friends\"/{number}"),
        _ => format!("{}{number}", if user == "megan" { 5391 } else { 7204 }),
    };
    let bytes = |kind: &str, count: usize| {
        let line = format!("{provider} {user} {number} {kind}\n");
        [&b"\xff\xd8\xff\xfe"[..], line.repeat(count).as_bytes(), b"\xff\xd9"].concat()
    };
    Photo { id, name: format!("Sommer \"{number}\" è.JPG"), full: bytes("full", 3000), thumbnail: bytes("thumbnail", 20) }
}

/// The photo of this id, of this user alone.
pub fn find(provider: &str, user: &str, id: &str) -> Option<usize> {
    photos(provider, user).iter().position(|photo| photo.id == id)
}
