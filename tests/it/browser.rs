//! A browser as far as connecting needs one: cookies by name and path, one request at a time, and a person's clicks on the sandbox's pages.

use crate::wire::{self, Answer, Body, Raw, empty, whole};
use http::Request;
use std::collections::HashMap;
use std::net::SocketAddr;
use url::Url;

#[derive(Default)]
pub struct Browser {
    /// By origin's port, path and name.
    cookies: HashMap<(u16, String), String>,
    /// Every `Set-Cookie` that came.
    pub seen_cookies: Vec<String>,
    /// Who answers for a port in place of whoever listens on it, as a load balancer decides.
    behind: HashMap<u16, SocketAddr>,
}

impl Browser {
    fn address(&self, url: &Url) -> SocketAddr {
        let port = url.port_or_known_default().expect("a port");
        self.behind.get(&port).copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// From now on `replica` answers for this port.
    pub fn balance(&mut self, port: u16, replica: SocketAddr) {
        self.behind.insert(port, replica);
    }

    pub async fn get(&mut self, url: &str) -> Answer {
        self.request("GET", url, &[], empty()).await
    }

    pub async fn head(&mut self, url: &str) -> Answer {
        self.request("HEAD", url, &[], empty()).await
    }

    /// Posts the form of a page that stands at the same URL.
    pub async fn post(&mut self, url: &str, form: &[(&str, &str)]) -> Answer {
        let origin = Url::parse(url).expect("a URL").origin().ascii_serialization();
        self.post_from(url, form, &[("origin", &origin), ("sec-fetch-site", "same-origin")]).await
    }

    /// Posts a form with exactly these headers besides the usual.
    pub async fn post_from(&mut self, url: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.request("POST", url, &all, whole(body.finish())).await
    }

    async fn request(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let url = Url::parse(url).expect("a URL");
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = format!("{}:{}", url.host_str().expect("a host"), url.port_or_known_default().expect("a port"));
        let mut request = Request::builder().method(method).uri(target).header("host", host);
        let port = url.port_or_known_default().expect("a port");
        let cookies: Vec<_> =
            self.cookies.iter().filter(|((of, _), _)| *of == port).map(|((_, name), value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = wire::call(self.address(&url), request.body(body).expect("a request")).await;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().expect("text").to_owned();
            let (name, value) = line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
            if line.contains("Max-Age=0") {
                self.cookies.remove(&(port, name.to_owned()));
            } else {
                self.cookies.insert((port, name.to_owned()), value.to_owned());
            }
            self.seen_cookies.push(line);
        }
        answer
    }

    /// Sends a GET and goes away before the answer comes.
    pub async fn get_and_leave(&mut self, url: &str) -> Raw {
        let url = Url::parse(url).expect("a URL");
        let cookies: Vec<_> = self.cookies.iter().map(|((_, name), value)| format!("{name}={value}")).collect();
        let mut raw = Raw::open(self.address(&url)).await;
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n", cookies.join("; "))).await;
        raw
    }

    /// From the link to the provider: the page is opened and its form sent. Answers the provider's URL.
    pub async fn set_out(&mut self, link: &str, provider: &str) -> String {
        self.get(link).await.is_ok();
        let answer = self.post(link, &[("provider", provider)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        answer.header("location")
    }

    /// From the link to the sandbox and the user's word there; answers where it sends the browser back to.
    pub async fn there_and_back(&mut self, link: &str, user: &str, decision: &str) -> String {
        let authorize = self.set_out(link, "sandbox").await;
        self.decide(&authorize, user, decision).await
    }

    /// Allows or denies at the sandbox; answers where it sends the browser back to.
    pub async fn decide(&mut self, authorize: &str, user: &str, decision: &str) -> String {
        let page = self.get(authorize).await;
        let text = page.is_ok().text();
        let ticket = text.split("name=\"ticket\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a ticket").to_owned();
        let post = authorize.split('?').next().expect("a path");
        let answer = self.post(post, &[("ticket", &ticket), ("decision", decision), ("user", user)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        answer.header("location")
    }
}

/// The value of a parameter in a URL's query.
#[track_caller]
pub fn param(url: &str, name: &str) -> String {
    let url = Url::parse(url).expect("a URL");
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}
