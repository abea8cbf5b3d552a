//! The photo API, the control switches and the listener over real sockets.

use super::*;

#[tokio::test]
async fn photos_are_listed_in_pages_and_found_by_name() {
    let world = World::new(|_| {}).await;
    let (token, _) = world.grant();
    let first = world.api("GET", "/v1/photos?page_size=7", &token, &[]).await.json();
    let path = format!("/v1/photos?page_size=7&page_token={}", text(&first, "next_page_token"));
    let second = world.api("GET", &path, &token, &[]).await.json();
    assert_eq!((first["items"].as_array().map(Vec::len), second["items"].as_array().map(Vec::len)), (Some(7), Some(5)));
    assert_eq!(second.get("next_page_token"), None);
    let found = world.api("GET", "/v1/photos?q=lake", &token, &[]).await.json();
    assert_eq!((&found["items"][0]["name"], found["items"].as_array().map(Vec::len)), (&json!("Lake at dawn.jpg"), Some(1)));
    for bad in ["page_size=0", "page_size=x", "page_token=x"] {
        assert_eq!(world.api("GET", &format!("/v1/photos?{bad}"), &token, &[]).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let alex = world.sandbox.issue_grant("alex@personalemail.com", &["photos.read"]).expect("a client");
    let hers = format!("/v1/photos/{}", text(&first["items"][0], "id"));
    assert_eq!(world.api("GET", &hers, alex.access_token.expose(), &[]).await.status, StatusCode::NOT_FOUND);
    let narrow = world.sandbox.issue_grant(MEGAN, &["profile"]).expect("a client");
    let refused = world.api("GET", &hers, narrow.access_token.expose(), &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.header(WWW_AUTHENTICATE).contains("scope=\"photos.read\""));
}

#[tokio::test]
async fn pictures_come_whole_in_part_and_not_again() {
    let world = World::new(|_| {}).await;
    let (token, _) = world.grant();
    let item = world.api("GET", "/v1/photos?page_size=1", &token, &[]).await.json()["items"][0].clone();
    let path = text(&item, "content");
    let whole = world.api("GET", path, &token, &[]).await;
    assert_eq!((whole.status, whole.header(CONTENT_TYPE), whole.header(ACCEPT_RANGES)), (StatusCode::OK, "image/jpeg", "bytes"));
    assert_eq!(picture::dimensions(&whole.body), Some((1600, 1067)));
    assert_eq!(item["size"], json!(whole.body.len()));
    let etag = whole.header(ETAG);
    let head = world.api("HEAD", path, &token, &[("range", "bytes=0-9")]).await;
    assert_eq!((head.status, head.header(CONTENT_LENGTH), head.body.len()), (StatusCode::OK, &*whole.body.len().to_string(), 0));
    let part = world.api("GET", path, &token, &[("range", "bytes=100-199"), ("if-range", etag)]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &whole.body[100..200]));
    assert_eq!(part.header(CONTENT_RANGE), format!("bytes 100-199/{}", whole.body.len()));
    let changed = world.api("GET", path, &token, &[("range", "bytes=100-199"), ("if-range", "\"other\"")]).await;
    assert_eq!((changed.status, changed.body.len()), (StatusCode::OK, whole.body.len()));
    let past = world.api("GET", path, &token, &[("range", "bytes=99999999-")]).await;
    assert_eq!((past.status, past.header(CONTENT_RANGE)), (StatusCode::RANGE_NOT_SATISFIABLE, &*format!("bytes */{}", whole.body.len())));
    assert_eq!(world.api("GET", path, &token, &[("if-none-match", etag)]).await.status, StatusCode::NOT_MODIFIED);
    let small = world.api("GET", text(&item, "thumbnail"), &token, &[]).await;
    assert_eq!(picture::dimensions(&small.body), Some((160, 107)));
}

#[tokio::test]
async fn uploads_stream_and_small_jpegs_are_listed() {
    let world = World::new(|_| {}).await;
    let grant = world.sandbox.issue_grant(MEGAN, &["photos.read", "photos.write"]).expect("a client");
    let token = grant.access_token.expose().to_owned();
    let post = |path: &str, chunk: Bytes, times: usize| {
        let frames = stream::iter(std::iter::repeat_n(chunk, times).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))));
        self::World::request(&world, "POST", path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(StreamBody::new(frames))
            .expect("a request")
    };
    let large = world.send(post("/v1/photos", Bytes::from(vec![7; 1 << 20]), 24)).await.expect("an answer").json();
    assert_eq!((&large["size"], &large["listed"]), (&json!(24 << 20), &json!(false)));
    let jpeg = Bytes::from(picture::draw(1, 64, 48).expect("drawn"));
    let small = world.send(post("/v1/photos?name=Mine.jpg", jpeg.clone(), 1)).await.expect("an answer");
    assert_eq!(small.status, StatusCode::CREATED);
    let back = world.api("GET", &format!("{}/content", small.header(LOCATION)), &token, &[]).await;
    assert_eq!(back.body, jpeg);
    assert_eq!(world.api("GET", "/v1/photos?q=mine", &token, &[]).await.json()["items"][0]["width"], json!(64));
    let sunk = world.send(post("/v1/sink", Bytes::from(vec![7; 1 << 20]), 24)).await.expect("an answer").json();
    assert_eq!(sunk, json!({"bytes": 24 << 20}));
}

#[tokio::test]
async fn probes_do_what_they_say() {
    let world = World::new(|_| {}).await;
    let (token, _) = world.grant();
    let echo = world.api("PATCH", "/v1/echo/a%2Fb//c;d?x=1&y=%20", &token, &[("x-a", "1"), ("x-a", "2")]).await.json();
    assert_eq!((text(&echo, "method"), text(&echo, "path")), ("PATCH", "/v1/echo/a%2Fb//c;d?x=1&y=%20"));
    assert_eq!((text(&echo, "authorization_scheme"), text(&echo, "token_user")), ("Bearer", MEGAN));
    assert!(echo["headers"].as_array().expect("a list").ends_with(&[json!(["x-a", "1"]), json!(["x-a", "2"])]));
    assert!(!echo.to_string().contains(&token));
    let bytes = world.api("GET", "/v1/bytes/200000", &token, &[]).await.body;
    assert!(bytes.len() == 200_000 && bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 65536 % 251));
    let part = world.api("GET", "/v1/bytes/9000000000", &token, &[("range", "bytes=8000000000-8000000009")]).await;
    assert_eq!((part.status, part.body.len(), usize::from(part.body[0])), (StatusCode::PARTIAL_CONTENT, 10, 8_000_000_000 % 65536 % 251));
    let status = world.api("DELETE", "/v1/status/429?retry_after=7", &token, &[]).await;
    assert_eq!((status.status.as_u16(), status.header(RETRY_AFTER)), (429, "7"));
    let redirect = world.api("GET", "/v1/redirect?to=https://cdn.example.com/x", &token, &[]).await;
    assert_eq!((redirect.status.as_u16(), redirect.header(LOCATION)), (302, "https://cdn.example.com/x"));
    let events = world.api("GET", "/v1/sse?n=3&every_ms=1", &token, &[]).await.body;
    assert_eq!(&events[..], b"id: 1\ndata: {\"n\":1}\n\nid: 2\ndata: {\"n\":2}\n\nid: 3\ndata: {\"n\":3}\n\n");
    for broken in ["/v1/cut?after=10", "/v1/cut?after=10&chunked=1", "/v1/hangup"] {
        let request = world.request("GET", broken).header(AUTHORIZATION, format!("Bearer {token}"));
        assert!(world.send(request.body(Full::<Bytes>::default()).expect("a request")).await.is_err(), "{broken}");
    }
    assert_eq!(world.get("/v1/me").await.header(WWW_AUTHENTICATE), "Bearer realm=\"sandbox\"");
    assert_eq!(world.api("GET", "/v1/nothing", &token, &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn switches_break_the_token_endpoint_and_the_api() {
    let world = World::new(|_| {}).await;
    let (access, first) = world.grant();
    let busy = json!({"fail_token": {"status": 503, "body": {"error": "temporarily_unavailable"}, "retry_after": 7, "times": 2}});
    assert_eq!(world.control("/control", busy).await.status, StatusCode::OK);
    for _ in 0..2 {
        let got = world.refresh(&first).await;
        assert_eq!((got.error(), got.header(RETRY_AFTER)), ((503, "temporarily_unavailable".into()), "7"));
    }
    let second = world.refresh(&first).await.json();
    assert_eq!(world.control("/control", json!({"lose_token_answers": 1})).await.status, StatusCode::OK);
    let lost = world.request("POST", "/token").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let lost = lost.header(AUTHORIZATION, basic(ID, SECRET).expect("made"));
    let form = format!("grant_type=refresh_token&refresh_token={}", text(&second, "refresh_token"));
    assert!(world.send(lost.body(Full::new(Bytes::from(form))).expect("a request")).await.is_err());
    assert_eq!(world.sandbox.counters().refreshes, 2, "the rotation happened");
    assert_eq!(world.refresh(text(&second, "refresh_token")).await.status, StatusCode::OK, "and its token has the leeway");

    let me = async || world.api("GET", "/v1/me", &access, &[]).await.status.as_u16();
    assert_eq!(world.control("/control", json!({"api_reject_next": 1})).await.status, StatusCode::OK);
    assert_eq!((me().await, me().await), (401, 200));
    assert_eq!(world.control("/control", json!({"api_reject_all": true, "rotates": false})).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(me().await, 200, "a request with a fault in it changes nothing");
    assert_eq!(world.control("/control", json!({"expire_access_tokens": true})).await.status, StatusCode::OK);
    assert_eq!(me().await, 401);
    let shown = world.get("/control").await.json();
    assert_eq!((&shown["counters"]["refreshes"], &shown["counters"]["api_rejected"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn control_issues_and_revokes_grants() {
    let world = World::new(|_| {}).await;
    let issued = world.control("/control/grants", json!({"user": MEGAN, "scopes": ["photos.read"]})).await;
    assert_eq!(issued.status, StatusCode::CREATED);
    let issued = issued.json();
    assert_eq!(text(&issued, "expires_at"), world.clock.now().plus(Duration::from_secs(30)).to_rfc3339());
    assert_eq!(world.refresh(text(&issued, "refresh_token")).await.status, StatusCode::OK);
    assert!(!String::from_utf8_lossy(&world.get("/control/grants").await.body).contains(text(&issued, "refresh_token")));
    assert_eq!(world.control("/control", json!({"revoke_user": MEGAN})).await.status, StatusCode::OK);
    assert_eq!(world.api("GET", "/v1/me", text(&issued, "access_token"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.control("/control/grants", json!({"user": ""})).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.control("/control/grants", json!({"user": "x", "client_id": "nobody"})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let world = World::new(|_| {}).await;
    let check = async |host: &str, site: &str, method: &str, expected: u16| {
        let request = Request::builder().method(method).uri("/control").header(HOST, host).header("sec-fetch-site", site);
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from_static(b"{}"))).expect("a request");
        assert_eq!(world.send(request).await.expect("an answer").status.as_u16(), expected, "{host} {site} {method}");
    };
    check("localhost:7080", "same-origin", "POST", 200).await;
    check("[::1]:7080", "none", "POST", 200).await;
    check("rebound.example.com:7080", "same-origin", "GET", 403).await;
    check("localhost.example.com", "none", "GET", 403).await;
    check("localhost:7080", "cross-site", "POST", 403).await;
    check("localhost:7080", "same-site", "POST", 403).await;
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_stops() {
    let open = Settings { bind: ([0, 0, 0, 0], 0).into(), ..Settings::default() };
    assert!(Sandbox::start(open, Arc::new(crate::base::clock::SystemClock)).await.is_err());
    let world = World::new(|_| {}).await;
    let (addr, (token, _)) = (world.sandbox.addr, world.grant());
    let slow = world.request("GET", "/v1/slow?ms=300").header(AUTHORIZATION, format!("Bearer {token}"));
    let slow = slow.body(Full::<Bytes>::default()).expect("a request");
    let stream = TcpStream::connect(addr).await.expect("connected");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shaken");
    tokio::spawn(connection);
    let answer = tokio::spawn(async move { sender.send_request(slow).await });
    while world.sandbox.counters().api_calls == 0 {
        tokio::task::yield_now().await;
    }
    world.sandbox.stop().await;
    assert_eq!(answer.await.expect("joined").expect("an answer").status(), StatusCode::OK, "a call under way ends well");
    assert!(TcpStream::connect(addr).await.is_err());
}
