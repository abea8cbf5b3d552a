//! gRPC-shaped calls, from HTTP/2 with prior knowledge to HTTP/2 over TLS: trailers, streams both ways, and resets.

use crate::harness::*;
use crate::streaming::accepted;
use crate::tls::{Authority, names};
use crate::wire::{Raw, within};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// What the server tells of its calls.
#[derive(Debug, PartialEq)]
enum Told {
    Head(Box<(HeaderMap, String)>),
    Reset(Option<Reason>),
    /// The client's side of a call ended by an error.
    Broken(Option<Reason>),
}

struct Server {
    world: World,
    told: mpsc::UnboundedReceiver<Told>,
}

impl Server {
    async fn start() -> Server {
        let authority = Authority::new();
        let (chain, key) = authority.sign(names(&["localhost"]));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let origin = format!("localhost:{}", listener.local_addr().expect("an address").port());
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let stream = acceptor.accept(accepted(&listener).await).await.expect("TLS");
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                let tell = tell.clone();
                tokio::spawn(async move {
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond, tell.clone()));
                    }
                });
            }
        });
        let route =
            format!("  - {{match: '/photos.Photos/{{*rest}}', provider: sandbox, upstream: 'https://{origin}/photos.Photos/{{rest}}'}}\n");
        let world = Plan::new().tls(authority.roots()).token_name(&origin).routes(&route).start().await;
        world.connect(MEGAN).await;
        Server { world, told }
    }

    async fn told(&mut self) -> Told {
        within("the server's word", self.told.recv()).await.expect("told")
    }
}

async fn serve(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>, tell: mpsc::UnboundedSender<Told>) {
    let (head, mut body) = request.into_parts();
    let _ = tell.send(Told::Head(Box::new((head.headers.clone(), head.uri.path().to_owned()))));
    let answer = || Response::builder().header("content-type", "application/grpc").body(()).expect("a response");
    match head.uri.path().rsplit_once('/').map(|(_, method)| method) {
        Some(method @ ("Unary" | "Announced")) => {
            let message = all(&mut body).await.expect("a message").0;
            let mut answer = answer();
            if method == "Announced" {
                answer.headers_mut().insert("trailer", "Grpc-Status".parse().expect("a value"));
            }
            let mut stream = respond.send_response(answer, false).expect("sent");
            stream.send_data(message.into(), false).expect("sent");
            stream.send_trailers(status("0")).expect("sent");
        }
        Some("TrailersOnly") => {
            let mut only = answer();
            only.headers_mut().extend(status("5"));
            respond.send_response(only, true).expect("sent");
        }
        Some("Echo") => {
            let mut stream = respond.send_response(answer(), false).expect("sent");
            while let Some(part) = body.data().await {
                let part = match part {
                    Ok(part) => part,
                    Err(error) => return drop(tell.send(Told::Broken(error.reason()))),
                };
                let count = part.len();
                write(&mut stream, part).await;
                body.flow_control().release_capacity(count).expect("released");
            }
            stream.send_trailers(status("0")).expect("sent");
        }
        Some("Hold") => {
            let mut stream = respond.send_response(answer(), false).expect("sent");
            stream.send_data(Bytes::from_static(b"part"), false).expect("sent");
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.ok();
            let _ = tell.send(Told::Reset(reset));
        }
        Some("Silent") => {
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.ok();
            let _ = tell.send(Told::Reset(reset));
        }
        Some("Break") => {
            let mut stream = respond.send_response(answer(), false).expect("sent");
            stream.send_data(Bytes::from_static(b"part"), false).expect("sent");
            // Once the part is on its way: a reset takes with it what still waits.
            let _ = body.data().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("a value"));
    trailers.insert("grpc-message", "as%20said".parse().expect("a value"));
    trailers
}

/// Writes with back-pressure: no more than the peer has room for.
async fn write(stream: &mut SendStream<Bytes>, mut part: Bytes) {
    while !part.is_empty() {
        stream.reserve_capacity(part.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        if stream.send_data(part.split_to(room.min(part.len())), false).is_err() {
            return;
        }
    }
}

async fn all(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut found = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        found.extend_from_slice(&part);
        body.flow_control().release_capacity(part.len())?;
    }
    Ok((found, body.trailers().await?))
}

struct Client(h2::client::SendRequest<Bytes>);

impl Client {
    async fn open(world: &World) -> Client {
        let stream = TcpStream::connect(world.proxy).await.expect("connected");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Client(client)
    }

    async fn call(&mut self, method: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://localhost:7070/photos.Photos/{method}"))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "5S")
            .header("grpc-accept-encoding", "gzip")
            .header("x-end-user", MEGAN)
            .body(())
            .expect("a request");
        let mut ready = within("room", self.0.clone().ready()).await.expect("ready");
        ready.send_request(request, false).expect("sent")
    }
}

async fn head(answer: h2::client::ResponseFuture) -> Response<RecvStream> {
    within("a head", answer).await.expect("an answer")
}

#[tokio::test]
async fn a_unary_call_has_its_trailers() {
    let mut server = Server::start().await;
    let mut client = Client::open(&server.world).await;
    let (answer, mut sending) = client.call("Unary").await;
    sending.send_data(Bytes::from_static(b"\0\0\0\0\x05hello"), true).expect("sent");
    let mut answer = head(answer).await;
    assert_eq!((answer.status(), &answer.headers()["content-type"]), (StatusCode::OK, &"application/grpc".parse().expect("a value")));
    let (message, trailers) = within("the answer", all(answer.body_mut())).await.expect("whole");
    assert_eq!((&*message, trailers), (&b"\0\0\0\0\x05hello"[..], Some(status("0"))));
    let Told::Head(seen) = server.told().await else { panic!("a head first") };
    for (name, value) in
        [("te", "trailers"), ("grpc-timeout", "5S"), ("grpc-accept-encoding", "gzip"), ("content-type", "application/grpc")]
    {
        assert_eq!(seen.0.get(name).map(|found| found.to_str().expect("text")), Some(value), "{name}");
    }
    assert!(seen.0["authorization"].to_str().expect("text").starts_with("Bearer ") && !seen.0.contains_key("x-end-user"));
    assert_eq!(seen.1, "/photos.Photos/Unary");
}

#[tokio::test]
async fn an_answer_of_trailers_alone_is_one() {
    let server = Server::start().await;
    let mut client = Client::open(&server.world).await;
    let (answer, mut sending) = client.call("TrailersOnly").await;
    sending.send_data(Bytes::new(), true).expect("sent");
    let answer = head(answer).await;
    assert_eq!(
        (&answer.headers()["grpc-status"], &answer.headers()["grpc-message"]),
        (&"5".parse().expect("a value"), &"as%20said".parse().expect("a value"))
    );
    assert!(answer.body().is_end_stream(), "the head ends it");
}

/// The answer begins while the request goes on, each message is answered before the next is sent, and much more than any window goes both ways.
#[tokio::test]
async fn a_stream_both_ways_is_interleaved_and_does_not_lock_up() {
    let server = Server::start().await;
    let mut client = Client::open(&server.world).await;
    let (answer, mut sending) = client.call("Echo").await;
    let mut answer = head(answer).await;
    let body = answer.body_mut();
    for message in ["one", "two", "three"] {
        sending.send_data(Bytes::from(message), false).expect("sent");
        let back = within("an echo", body.data()).await.expect("a part").expect("whole");
        assert_eq!(back, message);
        body.flow_control().release_capacity(back.len()).expect("released");
    }
    const MUCH: usize = 8 << 20;
    let writing = tokio::spawn(async move {
        for _ in 0..MUCH >> 16 {
            write(&mut sending, Bytes::from(vec![b'x'; 1 << 16])).await;
        }
        sending.send_data(Bytes::new(), true).expect("sent");
    });
    let (back, trailers) = within("all of it", all(body)).await.expect("whole");
    assert_eq!((back.len(), trailers), (MUCH, Some(status("0"))));
    writing.await.expect("written");
}

#[tokio::test]
async fn a_clients_reset_reaches_the_upstream() {
    let mut server = Server::start().await;
    let mut client = Client::open(&server.world).await;
    for (method, ends) in [("Hold", true), ("Hold", false), ("Silent", true), ("Silent", false)] {
        let (answer, mut sending) = client.call(method).await;
        if ends {
            sending.send_data(Bytes::new(), true).expect("sent");
        }
        assert!(matches!(server.told().await, Told::Head(_)));
        if method == "Hold" {
            let mut answer = head(answer).await;
            assert_eq!(within("a part", answer.body_mut().data()).await.expect("a part").expect("whole"), "part");
        }
        sending.send_reset(Reason::CANCEL);
        assert_eq!(server.told().await, Told::Reset(Some(Reason::CANCEL)), "{method} {ends}");
    }
    // In the middle of an upload that the upstream reads.
    let (answer, mut sending) = client.call("Echo").await;
    assert!(matches!(server.told().await, Told::Head(_)));
    sending.send_data(Bytes::from_static(b"part"), false).expect("sent");
    let mut answer = head(answer).await;
    assert_eq!(within("a part", answer.body_mut().data()).await.expect("a part").expect("whole"), "part");
    sending.send_reset(Reason::CANCEL);
    assert!(matches!(server.told().await, Told::Broken(Some(_))));
    // Others on the connection are not touched.
    let (answer, mut sending) = client.call("Unary").await;
    sending.send_data(Bytes::from_static(b"hello"), true).expect("sent");
    assert_eq!(within("the answer", all(head(answer).await.body_mut())).await.expect("whole").0, b"hello");
}

/// Taken out, the handing on of a body's error would fail it: a call that broke would look like one that ended.
#[tokio::test]
async fn threat_20_an_upstreams_reset_is_a_reset_and_never_an_end() {
    let server = Server::start().await;
    let mut client = Client::open(&server.world).await;
    let (answer, mut sending) = client.call("Break").await;
    let mut answer = head(answer).await;
    assert_eq!(within("a part", answer.body_mut().data()).await.expect("a part").expect("whole"), "part");
    sending.send_data(Bytes::from_static(b"more"), false).expect("sent");
    let failed = within("the end", all(answer.body_mut())).await.expect_err("cut");
    assert!(failed.is_reset(), "{failed}");
    // Over HTTP/1.1 the client sees no last chunk.
    let mut raw = Raw::open(server.world.proxy).await;
    let lines = format!("Host: localhost\r\nX-End-User: {MEGAN}\r\nContent-Length: 4\r\n");
    raw.send(format!("POST /photos.Photos/Break HTTP/1.1\r\n{lines}\r\n")).await;
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 200"));
    raw.send("more").await;
    assert!(!raw.until_last_chunk().await.ends_with(b"0\r\n\r\n"));
    // Before any answer it is Attaché's to say.
    let (answer, mut sending) = client.call("Early").await;
    sending.send_data(Bytes::new(), true).expect("sent");
    assert_eq!(head(answer).await.status(), StatusCode::BAD_GATEWAY);
}

/// Those that the head announces (RFC 9110 §6.5.1): hyper writes no others in chunks.
#[tokio::test]
async fn announced_trailers_pass_from_http_2_to_http_1() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.world.proxy).await;
    let lines = format!("Host: localhost\r\nX-End-User: {MEGAN}\r\nTE: trailers\r\nContent-Length: 5\r\n");
    raw.send(format!("POST /photos.Photos/Announced HTTP/1.1\r\n{lines}\r\nhello")).await;
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 200"));
    let mut body = String::new();
    while !body.ends_with("\r\n\r\n") {
        body.push_str(&String::from_utf8_lossy(&raw.some().await).to_ascii_lowercase());
    }
    assert!(body.starts_with("5\r\nhello\r\n0\r\n") && body.contains("grpc-status: 0\r\n"), "{body:?}");
}

/// hyper tells of no interim answers over HTTP/2: the client is asked at once.
#[tokio::test]
async fn over_http_2_an_expectation_is_met_at_once() {
    let mut server = Server::start().await;
    let mut raw = Raw::open(server.world.proxy).await;
    let lines = format!("Host: localhost\r\nX-End-User: {MEGAN}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n");
    raw.send(format!("POST /photos.Photos/Unary HTTP/1.1\r\n{lines}\r\n")).await;
    assert!(raw.head().await.expect("a head").starts_with("http/1.1 100"));
    raw.send("hello").await;
    assert_eq!(raw.answer().await.expect("an answer").body, b"hello");
    let Told::Head(seen) = server.told().await else { panic!("a head first") };
    assert!(!seen.0.contains_key("expect"));
}
