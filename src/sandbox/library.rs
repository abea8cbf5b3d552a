//! Whose photos there are: twelve drawn ones for every user, and the small JPEGs that users uploaded.
//!
//! All users' photos show the same few scenes, drawn once a process; each copy holds its user and photo id in a comment segment, so that the
//! bytes themselves prove whose photo was served, and a thousand users cost no more than one.

use crate::base::ids::random_id;
use crate::sandbox::picture;
use aws_lc_rs::digest;
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

const FULL: (u16, u16) = (1600, 1067);
const THUMBNAIL: (u16, u16) = (160, 107);
const SCENES: usize = 24;
/// The largest upload that is kept and listed, in bytes.
pub(super) const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much all kept uploads may take together.
const KEPT_TOTAL_BYTES_MAX: usize = 256 * 1024 * 1024;
const KEPT_PER_USER_MAX: usize = 64;

static FULL_SCENES: [OnceLock<Bytes>; SCENES] = [const { OnceLock::new() }; SCENES];
static THUMBNAIL_SCENES: [OnceLock<Bytes>; SCENES] = [const { OnceLock::new() }; SCENES];

const NAMES: [(&str, &str); 12] = [
    ("Lake at dawn.jpg", "2025-03-08T05:42:10Z"),
    ("Above the valley.jpg", "2025-03-08T11:15:33Z"),
    ("First ridge.jpg", "2025-04-19T08:03:51Z"),
    ("Evening by the sea.jpg", "2025-05-30T19:47:02Z"),
    ("Hazy morning.jpg", "2025-06-14T04:58:40Z"),
    ("The long way home.jpg", "2025-06-14T18:20:27Z"),
    ("Midsummer night.jpg", "2025-06-21T22:31:09Z"),
    ("Ferry.jpg", "2025-07-05T09:12:45Z"),
    ("Before the storm.jpg", "2025-08-17T15:36:58Z"),
    ("Harvest moon.jpg", "2025-10-06T20:05:14Z"),
    ("Frost.jpg", "2025-12-03T07:44:29Z"),
    ("New year's walk.jpg", "2026-01-01T12:00:00Z"),
];

/// What is known of a photo without its pixels.
#[derive(Clone)]
pub(super) struct Photo {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) size: (u16, u16),
    pub(super) taken_at: String,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Drawn { scene: usize, comment: String },
    Uploaded(Bytes),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rendition {
    Full,
    Thumbnail,
}

impl Photo {
    /// The number of bytes of the full picture; draws it where nobody has yet.
    pub(super) async fn bytes_len(&self) -> usize {
        match &self.content {
            Content::Drawn { scene, comment } => picture::commented_len(drawn(*scene, Rendition::Full).await.len(), comment.len()),
            Content::Uploaded(bytes) => bytes.len(),
        }
    }

    /// An upload is its own thumbnail: nothing here decodes pictures.
    pub(super) async fn bytes(&self, rendition: Rendition) -> Bytes {
        match &self.content {
            Content::Drawn { scene, comment } => picture::with_comment(&drawn(*scene, rendition).await, comment).into(),
            Content::Uploaded(bytes) => bytes.clone(),
        }
    }
}

/// A scene, drawn at most once a process and never on a thread that serves calls.
async fn drawn(scene: usize, rendition: Rendition) -> Bytes {
    let (scenes, (width, height)) = match rendition {
        Rendition::Full => (&FULL_SCENES, FULL),
        Rendition::Thumbnail => (&THUMBNAIL_SCENES, THUMBNAIL),
    };
    let Some(cell) = scenes.get(scene) else { return Bytes::new() };
    if let Some(picture) = cell.get() {
        return picture.clone();
    }
    // These sizes are within what the encoder takes; if it failed all the same, the picture would be empty, which any test would see.
    let draw = move || cell.get_or_init(|| picture::draw(seed(scene), width, height).unwrap_or_default().into()).clone();
    tokio::task::spawn_blocking(draw).await.unwrap_or_default()
}

/// Spreads the scenes' numbers over all bits (the multiplier is that of splitmix64).
fn seed(scene: usize) -> u64 {
    (scene as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The photos drawn for `user`, always the same.
fn drawn_for(user: &str) -> impl Iterator<Item = Photo> + '_ {
    let first = digest::digest(&digest::SHA256, user.as_bytes()).as_ref().first().copied().unwrap_or_default();
    NAMES.iter().enumerate().map(move |(at, (name, taken_at))| {
        let hash = digest::digest(&digest::SHA256, format!("{user}\0{at}").as_bytes());
        let id = hash.as_ref().iter().take(8).fold(String::from("ph_"), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        });
        let content = Content::Drawn { scene: (usize::from(first) + at) % SCENES, comment: format!("user={user} photo={id}") };
        Photo { id, name: (*name).to_owned(), size: FULL, taken_at: (*taken_at).to_owned(), content }
    })
}

#[derive(Default)]
struct Uploads {
    of: HashMap<String, Vec<Photo>>,
    bytes: usize,
}

#[derive(Default)]
pub(super) struct Library(Mutex<Uploads>);

impl Library {
    pub(super) fn photos(&self, user: &str) -> Vec<Photo> {
        let mut photos: Vec<Photo> = drawn_for(user).collect();
        let uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        photos.extend(uploads.of.get(user).into_iter().flatten().cloned());
        photos
    }

    pub(super) fn photo(&self, user: &str, id: &str) -> Option<Photo> {
        self.photos(user).into_iter().find(|photo| photo.id == id)
    }

    /// Keeps an upload if it is a whole JPEG and there is room; says under which id.
    pub(super) fn keep(&self, user: &str, name: &str, taken_at: String, bytes: Bytes) -> Option<String> {
        let size = picture::dimensions(&bytes)?;
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = uploads.of.get(user).map_or(0, Vec::len);
        if bytes.len() > KEPT_BYTES_MAX || theirs >= KEPT_PER_USER_MAX || uploads.bytes + bytes.len() > KEPT_TOTAL_BYTES_MAX {
            return None;
        }
        uploads.bytes += bytes.len();
        let id = random_id("up");
        let photo = Photo { id: id.clone(), name: name.to_owned(), size, taken_at, content: Content::Uploaded(bytes) };
        uploads.of.entry(user.to_owned()).or_default().push(photo);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn photos_are_each_users_own_and_stay_the_same() {
        let library = Library::default();
        let megan = library.photos("megan");
        assert_eq!(megan.len(), 12);
        let ids = |user| library.photos(user).into_iter().map(|photo| photo.id).collect::<Vec<_>>();
        assert_eq!(ids("megan"), ids("megan"));
        assert!(ids("alex").iter().all(|id| library.photo("megan", id).is_none()));
        let small = megan[0].bytes(Rendition::Thumbnail).await;
        assert_eq!(picture::dimensions(&small), Some(THUMBNAIL));
        assert_ne!(small, megan[1].bytes(Rendition::Thumbnail).await);
        assert!(small.windows(10).any(|window| window == b"user=megan"));
    }

    #[test]
    fn keeps_whole_jpegs_within_its_limits_only() {
        let library = Library::default();
        let jpeg = Bytes::from(picture::draw(1, 16, 16).expect("drawn"));
        assert!(library.keep("megan", "x", String::new(), Bytes::from_static(b"text")).is_none());
        for _ in 0..KEPT_PER_USER_MAX {
            assert!(library.keep("megan", "x", String::new(), jpeg.clone()).is_some());
        }
        assert!(library.keep("megan", "x", String::new(), jpeg.clone()).is_none());
        assert_eq!(library.photos("alex").len(), 12);
    }
}
