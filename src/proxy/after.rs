//! What becomes of an answer on a route with `send`, `follow` or `response`; all others pass as they come.

use super::body::Upload;
use super::error::ProxyError;
use super::follow::{Answered, Asked, Hops, chase, discard, follow};
use super::forward::{Call, answer, clean};
use super::headers::is_json;
use super::relay::ProxyBody;
use crate::config::{ResponseAs, Special};
use crate::route::SelectFault;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, TRAILER};
use http::response::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What the upstream says of the bytes of its answer, which are not those of ours.
const OF_BYTES: [HeaderName; 9] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    ETAG,
    ACCEPT_RANGES,
    TRAILER,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// The answer to the client.
pub(super) async fn finish(
    hops: &Hops,
    call: &Call<'_>,
    special: &Special,
    asked: &Asked<'_>,
    mut answered: Answered,
    upload: Option<Rc<Upload>>,
    deadline: Option<Instant>,
) -> Result<Response<ProxyBody>, ProxyError> {
    if upload.as_ref().is_some_and(|upload| !upload.done()) {
        // It came before its request was through, so it is most likely a refusal, and its connection is fit for nothing else.
        return Ok(answer(call, answered, upload, deadline));
    }
    // One without a body has nothing to look into.
    let found = |answered: &Answered| answered.response.status().is_success() && answered.response.status() != StatusCode::NO_CONTENT;
    match &special.response {
        Some(wanted) if wanted.is_location && found(&answered) => {
            let (_, body) = read(call, wanted, answered, deadline).await?;
            let location = wanted.selector.select_text(&body).map_err(nothing)?;
            answered = chase(hops, call, asked, location, deadline).await?;
        }
        _ if special.follow => answered = follow(hops, call, asked, answered, deadline).await?,
        _ => {}
    }
    match &special.response {
        Some(wanted) if !wanted.is_location && found(&answered) => {
            let (head, body) = read(call, wanted, answered, deadline).await?;
            let body = wanted.selector.select_json(&body).map_err(nothing)?;
            Ok(own(call, head, body.into()))
        }
        // Asked by another method than HEAD upstream, it has a body that the client does not want.
        _ if call.head.method == Method::HEAD && !(answered.response.body().is_end_stream() && answered.held.is_empty()) => {
            let (head, body) = answered.response.into_parts();
            discard(Answered { response: Response::new(body), held: answered.held, lease: answered.lease });
            Ok(whole(call, head, None))
        }
        _ => Ok(answer(call, answered, upload, deadline)),
    }
}

/// Reads a JSON answer whole.
async fn read(
    call: &Call<'_>,
    wanted: &ResponseAs,
    Answered { response, held, lease }: Answered,
    deadline: Option<Instant>,
) -> Result<(Parts, Bytes), ProxyError> {
    let (head, mut body) = response.into_parts();
    let coded = head.headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if head.status == StatusCode::PARTIAL_CONTENT || coded || !is_json(&head.headers) {
        let kind = head.headers.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        return Err(unfit("the route's `response` wants whole, plain JSON, and the answer is none", kind.unwrap_or_default()));
    }
    let too_long = || unfit("the answer is longer than the route's `response.max`", String::new());
    let mut read = BytesMut::new();
    if body.size_hint().lower() > wanted.bytes_max as u64 {
        return Err(too_long());
    }
    let mut held = held.into_iter();
    loop {
        let frame = match held.next() {
            Some(frame) => frame,
            None => match patiently(body.frame(), call.target.route.timeouts.idle, deadline).await? {
                Some(frame) => frame.map_err(|error| ProxyError::UpstreamBadResponse(error.to_string()))?,
                None => break,
            },
        };
        let Ok(part) = frame.into_data() else { continue };
        if read.len() + part.len() > wanted.bytes_max {
            return Err(too_long());
        }
        read.extend_from_slice(&part);
    }
    lease.give_back();
    Ok((head, read.freeze()))
}

async fn patiently<T>(part: impl Future<Output = T>, idle: Option<Duration>, deadline: Option<Instant>) -> Result<T, ProxyError> {
    match [idle.map(|idle| Instant::now() + idle), deadline].into_iter().flatten().min() {
        None => Ok(part.await),
        Some(ends) => tokio::time::timeout_at(ends, part).await.map_err(|_| ProxyError::UpstreamTimeout),
    }
}

/// What was selected, with the upstream's head as far as that still says something true.
fn own(call: &Call<'_>, mut head: Parts, body: Bytes) -> Response<ProxyBody> {
    OF_BYTES.iter().for_each(|name| drop(head.headers.remove(name)));
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    whole(call, head, Some(body))
}

/// An answer that is told to the log here, because no body streams.
fn whole(call: &Call<'_>, mut head: Parts, body: Option<Bytes>) -> Response<ProxyBody> {
    clean(call, &mut head);
    if let Some(account) = call.cx.take_account() {
        account.tell(head.status.as_u16(), body.as_ref().map_or(0, |body| body.len() as u64), true, None);
    }
    Response::from_parts(head, ProxyBody::Own(body))
}

fn nothing(fault: SelectFault) -> ProxyError {
    unfit("the route's `response` found nothing in the answer that it could use", fault.to_string())
}

fn unfit(why: &'static str, detail: String) -> ProxyError {
    ProxyError::UpstreamUnfit { why, detail }
}
