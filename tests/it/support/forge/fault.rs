//! The ways in which a host can misbehave.

use base64::Engine;
use serde_json::{Value, json};

use super::bitbucket_data_center::refusal as data_center;
use super::gitea::refusal as gitea;
use super::raw::Step;
use super::wire::{Query, Reply, Seen, decode};
use super::{Answer, Shared, bitbucket_cloud};

/// A misbehaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 302 to the cloud metadata address.
    RedirectMetadata,
    /// 302 (or another status) to the same path at another origin.
    RedirectOtherOrigin { status: u16, origin: String },
    /// 302 to the request's own URL. With a number of times: that many redirects on the same origin, then the truth.
    RedirectLoop,
    /// 301 from https to plain http on the same host and port.
    RedirectDowngrade,
    /// 203 with an HTML sign-in page.
    HtmlSignIn,
    /// 200 with an HTML page.
    HtmlOk,
    /// 404 with the HTML page of a web server that is no Git host.
    NotFoundHtml,
    /// 500 in the provider's own JSON.
    ServerError,
    /// 503 with the HTML page of a front proxy.
    Unavailable,
    /// 429 in the provider's own form, with this `Retry-After` (absent for `None`).
    RateLimited(Option<String>),
    /// GitLab's general limit: 429 with plain text, `Retry-After` and `RateLimit-*`.
    RateLimitedText(String),
    /// The truth, with the headers of a provider that is near its limit and asks to wait.
    Delayed(String),
    /// The body comes one byte at a time.
    DripBody,
    /// The head comes one header at a time.
    DripHeaders,
    /// Nothing comes at all.
    Silent,
    /// The connection is closed before the head.
    CloseBeforeHead,
    /// The connection is reset after the head.
    ResetAfterHeaders,
    /// The connection is reset in the middle of the body.
    ResetMidBody,
    /// The connection closes before `Content-Length` is reached.
    ShortBody,
    /// `Content-Length` of 10 TB, then data for as long as the client reads (up to 64 MiB).
    HugeContentLength,
    /// Chunked data without an end (up to 1 GiB).
    EndlessBody,
    /// `Content-Encoding: br, gzip, gzip` over plain bytes.
    UnknownEncoding,
    /// A `Content-Encoding: gzip` body that is no gzip.
    BrokenGzip,
    /// A gzip body of a few hundred KB that unpacks to about 100 MB of zeros.
    GzipBomb,
    /// Broken JSON of the right content type.
    GarbageJson,
    /// An empty body of the right content type.
    EmptyBody,
    /// 10,000 arrays in each other.
    DeepJson,
    /// An array of ten million empty arrays.
    ManyElements,
    /// The truth, with every `id` of a wrong type.
    WrongTypes(WrongId),
    /// The truth, with a member in every object that nobody knows.
    UnknownMembers,
    /// 200 with a JSON object that has nothing in it.
    FakeSuccess,
    /// Listings: the next page is this page.
    SelfNextLink,
    /// Listings: the pages lead back to the second one.
    CursorCycle,
    /// Listings: paging is ignored, the first page comes for every cursor, each time with a new cursor.
    SamePageForever,
    /// Listings: the link to the next page names this origin.
    ForeignNextLink(String),
    /// Listings: the next page is this text.
    BadNextPage(String),
    /// Listings: the totals are ten times what is there (Azure DevOps: `count`).
    InflatedTotal,
    /// 500 that repeats the caller's token in body and header.
    TokenEcho,
    /// An HTTP/1.0 answer without a length.
    Http10,
    /// A body without a head, as in HTTP/0.9.
    Garbage,
    /// Plain text in the middle of a TLS connection (without TLS: garbage before the head).
    PlainUnderTls,
    /// 500 with 5 MB of text.
    Error5Mb,
    /// 103 Early Hints, this many, then the truth.
    EarlyHints(usize),
    /// 100 Continue, this many, then the truth.
    Continues(usize),
    /// 101 Switching Protocols that nobody asked for.
    Upgrade,
    /// A header value with a line feed in it.
    BareLfHeader,
    /// 2,000 headers.
    ManyHeaders,
}

/// What stands where a GitLab id (a number), an Azure DevOps id (a GUID string) or a Bitbucket Cloud one (a UUID in
/// braces) belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongId {
    /// A string with a number in it.
    String,
    /// A number with a fraction.
    Float,
    /// 2^63 and some.
    Huge,
    /// A number beyond every float.
    Exponent,
    /// `null`.
    Null,
}

/// A name for `--fault`, and what makes the fault.
pub(crate) type NamedFault = (&'static str, fn() -> Fault);

/// Every fault that has a name.
#[rustfmt::skip]
pub(crate) const FAULTS: &[NamedFault] = &[
    ("redirect-metadata", || Fault::RedirectMetadata),
    ("redirect-other-origin", || Fault::RedirectOtherOrigin { status: 302, origin: "https://elsewhere.test".into() }),
    ("redirect-loop", || Fault::RedirectLoop),
    ("redirect-downgrade", || Fault::RedirectDowngrade),
    ("html-signin", || Fault::HtmlSignIn),
    ("html-ok", || Fault::HtmlOk),
    ("not-found-html", || Fault::NotFoundHtml),
    ("server-error-500", || Fault::ServerError),
    ("unavailable-503", || Fault::Unavailable),
    ("rate-limited-429", || Fault::RateLimited(Some("3".into()))),
    ("rate-limited-text", || Fault::RateLimitedText("3".into())),
    ("rate-limited-bare", || Fault::RateLimited(None)),
    ("delayed", || Fault::Delayed("5".into())),
    ("drip-body", || Fault::DripBody),
    ("drip-headers", || Fault::DripHeaders),
    ("silent", || Fault::Silent),
    ("close-before-head", || Fault::CloseBeforeHead),
    ("reset-after-headers", || Fault::ResetAfterHeaders),
    ("reset-mid-body", || Fault::ResetMidBody),
    ("short-body", || Fault::ShortBody),
    ("huge-content-length", || Fault::HugeContentLength),
    ("endless-body", || Fault::EndlessBody),
    ("unknown-encoding", || Fault::UnknownEncoding),
    ("broken-gzip", || Fault::BrokenGzip),
    ("gzip-bomb", || Fault::GzipBomb),
    ("garbage-json", || Fault::GarbageJson),
    ("empty-body", || Fault::EmptyBody),
    ("deep-json", || Fault::DeepJson),
    ("many-elements-json", || Fault::ManyElements),
    ("wrong-types", || Fault::WrongTypes(WrongId::String)),
    ("wrong-types-float", || Fault::WrongTypes(WrongId::Float)),
    ("wrong-types-huge", || Fault::WrongTypes(WrongId::Huge)),
    ("wrong-types-exponent", || Fault::WrongTypes(WrongId::Exponent)),
    ("wrong-types-null", || Fault::WrongTypes(WrongId::Null)),
    ("unknown-members", || Fault::UnknownMembers),
    ("fake-success", || Fault::FakeSuccess),
    ("self-next-link", || Fault::SelfNextLink),
    ("cursor-cycle", || Fault::CursorCycle),
    ("same-page-forever", || Fault::SamePageForever),
    ("foreign-next-link", || Fault::ForeignNextLink("https://elsewhere.test".into())),
    ("bad-next-page-header", || Fault::BadNextPage("abc".into())),
    ("inflated-total", || Fault::InflatedTotal),
    ("token-echo", || Fault::TokenEcho),
    ("http10", || Fault::Http10),
    ("garbage-protocol", || Fault::Garbage),
    ("plain-under-tls", || Fault::PlainUnderTls),
    ("error-5mb", || Fault::Error5Mb),
    ("early-hints", || Fault::EarlyHints(1000)),
    ("continues", || Fault::Continues(1000)),
    ("upgrade", || Fault::Upgrade),
    ("bare-lf-header", || Fault::BareLfHeader),
    ("many-headers", || Fault::ManyHeaders),
];

impl Fault {
    /// The fault of a `--fault` name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (_, fault) = FAULTS.iter().find(|(known, _)| *known == name)?;
        Some(fault())
    }
}

/// Which requests meet a fault.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) prefix: String,
    pub(crate) skip: usize,
    pub(crate) left: usize,
    pub(crate) fault: Fault,
    /// The first cursor that [`Fault::CursorCycle`] let through.
    pub(crate) first_cursor: Option<String>,
}

/// Answers a request as `fault` demands; `rule` is the place of its rule.
pub(super) fn apply(forge: &Shared, rule: usize, fault: &Fault, seen: &Seen) -> Answer {
    match paging(forge, rule, fault, seen)
        .or_else(|| refusal(forge, fault, seen))
        .or_else(|| content(forge, fault, seen))
    {
        Some(reply) => Answer::Reply(reply),
        None => Answer::Raw(raw(forge, fault, &forge.truth(seen))),
    }
}

/// Refusals and redirects.
fn refusal(forge: &Shared, fault: &Fault, seen: &Seen) -> Option<Reply> {
    let azure = seen.path.starts_with("/azure");
    Some(match fault {
        Fault::RedirectMetadata => redirect(302, "http://169.254.169.254/latest/meta-data/".to_owned()),
        Fault::RedirectOtherOrigin { status, origin } => {
            redirect(*status, format!("{origin}{}", seen.target()))
        }
        Fault::RedirectLoop => redirect(302, format!("{}{}", forge.origin, seen.target())),
        Fault::RedirectDowngrade => {
            let plain = forge.origin.replace("https://", "http://");
            redirect(301, format!("{plain}{}", seen.target()))
        }
        Fault::HtmlSignIn => Reply::html(203, SIGN_IN),
        Fault::HtmlOk => Reply::html(200, SIGN_IN),
        Fault::NotFoundHtml => Reply::html(
            404,
            "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body><center><h1>404 Not Found</h1></center><hr><center>nginx</center></body>\r\n</html>\r\n",
        ),
        Fault::ServerError if azure => Reply::json(
            500,
            &json!({"$id": "1", "innerException": null, "message": "TF400898: An Internal Error Occurred. Activity Id: 00000000-0000-0000-0000-000000000000.",
                "typeName": "System.Exception, mscorlib", "typeKey": "Exception", "errorCode": 0, "eventId": 3000}),
        ),
        Fault::ServerError if is_gitea(seen) => gitea::failed(),
        Fault::ServerError if is_bitbucket_cloud(seen) => bitbucket_cloud::refusal::failed(),
        Fault::ServerError if is_data_center(seen) => data_center::failed(),
        Fault::ServerError if is_github(seen) => Reply::json(500, &json!({"message": "Server Error"})),
        Fault::ServerError => Reply::json(500, &json!({"message": "500 Internal Server Error"})),
        Fault::Unavailable => Reply::html(
            503,
            "<html><head><title>503 Service Unavailable</title></head><body>no server is available to handle this request</body></html>",
        ),
        Fault::RateLimited(after) => {
            let reply = match azure {
                true => azure_limited(),
                false if is_gitea(seen) => gitea::limited(),
                false if is_bitbucket_cloud(seen) => bitbucket_cloud::refusal::limited(),
                false if is_data_center(seen) => data_center::limited(),
                false if is_github(seen) => github_limited(),
                false => gitlab_limited(),
            };
            match after {
                Some(after) => reply.header("retry-after", after),
                None => reply,
            }
        }
        Fault::RateLimitedText(after) => Reply::new(429, "text/plain", "Retry later\n")
            .header("retry-after", after)
            .header("ratelimit-limit", 60)
            .header("ratelimit-name", "throttle_authenticated_api")
            .header("ratelimit-observed", 67)
            .header("ratelimit-remaining", 0)
            .header("ratelimit-reset", 1_609_844_400)
            .header("ratelimit-resettime", "Tue, 05 Jan 2021 11:00:00 GMT"),
        Fault::TokenEcho => {
            let token = token(seen);
            Reply::json(500, &json!({"message": format!("500 no such user: {token}"), "token": token}))
                .header("x-echo", token)
        }
        Fault::Error5Mb => Reply::new(500, "text/plain", "a very long error. ".repeat(276_000)),
        _ => return None,
    })
}

/// Answers whose body is wrong.
fn content(forge: &Shared, fault: &Fault, seen: &Seen) -> Option<Reply> {
    const JSON: &str = "application/json";
    Some(match fault {
        Fault::Delayed(after) => forge
            .truth(seen)
            .header("retry-after", after)
            .header("x-ratelimit-resource", "Core")
            .header("x-ratelimit-delay", "4.8")
            .header("x-ratelimit-limit", 200)
            .header("x-ratelimit-remaining", 0)
            .header("x-ratelimit-reset", 1_700_000_000),
        Fault::UnknownEncoding => forge.truth(seen).header("content-encoding", "br, gzip, gzip"),
        Fault::BrokenGzip => forge.truth(seen).header("content-encoding", "gzip"),
        Fault::GzipBomb => Reply::new(200, JSON, gzip_bomb(400_000)).header("content-encoding", "gzip"),
        Fault::GarbageJson => Reply::new(200, JSON, "[{\"id\": 1, \"name\": \"half a ro"),
        Fault::EmptyBody => Reply::new(200, JSON, ""),
        Fault::DeepJson => Reply::new(200, JSON, deep(10_000)),
        Fault::ManyElements => Reply::new(200, JSON, format!("[{}[]]", "[],".repeat(9_999_999))),
        Fault::WrongTypes(wrong) => {
            let mut reply = forge.truth(seen);
            let text = String::from_utf8_lossy(&reply.body);
            let key = if is_bitbucket_cloud(seen) { "\"uuid\":" } else { "\"id\":" };
            reply.body = wrong_ids(&text, key, *wrong).into();
            reply
        }
        Fault::UnknownMembers => {
            let mut reply = forge.truth(seen);
            // What is no JSON stays as it is.
            if let Ok(mut value) = serde_json::from_slice::<Value>(&reply.body) {
                add_unknown(&mut value);
                reply.body = value.to_string().into();
            }
            reply
        }
        Fault::FakeSuccess => Reply::new(200, JSON, "{}"),
        Fault::ManyHeaders => {
            let mut reply = forge.truth(seen);
            for index in 0..2_000 {
                reply = reply.header(&format!("x-noise-{index}"), index);
            }
            reply
        }
        _ => return None,
    })
}

fn add_unknown(value: &mut Value) {
    match value {
        Value::Array(rows) => rows.iter_mut().for_each(add_unknown),
        Value::Object(members) => {
            members.values_mut().for_each(add_unknown);
            members.insert("a_new_member".to_owned(), json!({"of": [1, 2.5, null, {"another": "kind"}]}));
        }
        _ => {}
    }
}

/// Listings that do not end.
fn paging(forge: &Shared, rule: usize, fault: &Fault, seen: &Seen) -> Option<Reply> {
    if is_bitbucket_cloud(seen) {
        return bitbucket_cloud::paging::spoiled(forge, fault, seen, |next| {
            let mut control = forge.control();
            let first = &mut control.rules.get_mut(rule)?.first_cursor;
            if first.is_some() {
                return first.clone();
            }
            *first = next;
            None
        });
    }
    let azure = seen.path.starts_with("/azure");
    let mut reply;
    match fault {
        Fault::SelfNextLink => {
            reply = forge.truth(seen);
            if cursor(&reply).is_some() {
                let own = own_cursor(seen, azure);
                set_cursor(&mut reply, seen, &forge.origin, &own);
            }
        }
        Fault::CursorCycle => {
            reply = forge.truth(seen);
            let own = own_cursor(seen, azure);
            let mut control = forge.control();
            let first = control.rules.get_mut(rule).map(|rule| &mut rule.first_cursor);
            match first {
                Some(Some(first)) if own != *first => {
                    let first = first.clone();
                    set_cursor(&mut reply, seen, &forge.origin, &first);
                }
                Some(first @ None) => *first = cursor(&reply),
                _ => {}
            }
        }
        Fault::SamePageForever => {
            let query = seen.params();
            let own = own_cursor(seen, azure).parse::<u64>().unwrap_or(1);
            let fixed = ["id_after", "id_before", "page", "$skip", "continuationToken", "cursor", "start"]
                .iter()
                .fold(query, |query, name| query.without(name));
            reply = forge.truth(&Seen { query: fixed.encode(), ..seen.clone() });
            if cursor(&reply).is_some() {
                set_cursor(&mut reply, seen, &forge.origin, &(own + 1).to_string());
            }
        }
        Fault::ForeignNextLink(origin) => {
            reply = forge.truth(seen);
            if let Some(next) = cursor(&reply) {
                set_cursor(&mut reply, seen, origin, &next);
            }
        }
        Fault::InflatedTotal => {
            reply = forge.truth(seen);
            inflate(&mut reply);
        }
        Fault::BadNextPage(next) => {
            reply = forge.truth(seen);
            if cursor(&reply).is_some() {
                set_cursor(&mut reply, seen, &forge.origin, next);
            }
        }
        _ => return None,
    }
    Some(reply)
}

/// The cursor that an answer names.
fn cursor(reply: &Reply) -> Option<String> {
    if let Some(token) = reply.value("x-ms-continuationtoken") {
        return Some(token.to_owned());
    }
    if let Some(start) = data_center::next_start(reply) {
        return Some(start);
    }
    if let Some(page) = reply.value("x-next-page") {
        return Some(page.to_owned()).filter(|page| !page.is_empty());
    }
    let next = reply.value("link")?.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, query) = next.split_once('?')?;
    let query = Query::parse(query.split_once('>')?.0);
    ["id_after", "id_before", "cursor", "page"].iter().find_map(|name| query.first(name)).map(str::to_owned)
}

/// The cursor that a request named; the first page's name if it named none.
fn own_cursor(seen: &Seen, azure: bool) -> String {
    let query = seen.params();
    let names: &[&str] = if azure {
        &["continuationToken", "$skip"]
    } else {
        &["id_after", "id_before", "cursor", "page", "start"]
    };
    let own = names.iter().find_map(|name| query.first(name));
    own.unwrap_or(if azure { "0" } else { "1" }).to_owned()
}

/// Makes an answer point to another next page.
fn set_cursor(reply: &mut Reply, seen: &Seen, origin: &str, next: &str) {
    if seen.path.starts_with("/azure") {
        reply.set("x-ms-continuationtoken", next);
        return;
    }
    if is_data_center(seen) {
        data_center::set_next_start(reply, next);
        return;
    }
    let keyset = reply.value("x-next-page").is_none();
    if !keyset {
        reply.set("x-next-page", next);
    }
    let query = seen.params();
    let name = match (keyset, query.first("sort")) {
        _ if is_gitea(seen) || is_github(seen) => "page",
        (false, _) => "page",
        (true, Some("desc")) => "id_before",
        (true, _) => "id_after",
    };
    let link = query.with(name, next).encode();
    reply.set("link", format!("<{origin}{}?{link}>; rel=\"next\"", seen.path));
}

fn is_bitbucket_cloud(seen: &Seen) -> bool {
    seen.path.starts_with("/bitbucket-cloud")
}

/// Whether a request is for the fake Gitea.
fn is_gitea(seen: &Seen) -> bool {
    seen.path.starts_with("/gitea/")
}

/// Whether a request is for the fake Bitbucket Data Center.
fn is_data_center(seen: &Seen) -> bool {
    seen.path.starts_with("/bitbucket/")
}

/// Multiplies the totals by ten.
fn inflate(reply: &mut Reply) {
    for name in ["x-total", "x-total-pages", "x-total-count"] {
        if let Some(total) = reply.value(name).and_then(|total| total.parse::<u64>().ok()) {
            reply.set(name, total * 10);
        }
    }
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let count = text.strip_prefix("{\"count\":").and_then(|rest| rest.split_once(','));
    if let Some((count, rest)) = count {
        let count = count.parse::<u64>().unwrap_or(1) * 10;
        reply.body = format!("{{\"count\":{count},{rest}").into();
    }
}

/// Answers that are written by hand.
fn raw(forge: &Shared, fault: &Fault, truth: &Reply) -> Vec<Step> {
    let body = truth.body.to_vec();
    let head = truth.head();
    let sized = format!("{head}content-length: {}\r\n\r\n", body.len());
    let half = body.len() / 2;
    let answer = || Step::Bytes([sized.as_bytes(), body.as_slice()].concat());
    match fault {
        Fault::DripBody => vec![
            Step::Bytes(sized.into_bytes()),
            Step::Drip(body.chunks(1).map(<[u8]>::to_vec).collect(), forge.drip),
        ],
        Fault::DripHeaders => {
            let lines = head.split_inclusive('\n').map(|line| line.as_bytes().to_vec());
            let noise = (0..1_000).map(|index| format!("x-noise-{index}: drip\r\n").into_bytes());
            vec![Step::Drip(lines.chain(noise).collect(), forge.drip)]
        }
        Fault::CloseBeforeHead => Vec::new(),
        Fault::ResetAfterHeaders => vec![Step::Bytes(sized.into_bytes()), Step::Reset],
        Fault::ResetMidBody => {
            let begun = [sized.as_bytes(), &body[..half]].concat();
            vec![Step::Bytes(begun), Step::Reset]
        }
        Fault::ShortBody => vec![Step::Bytes([sized.as_bytes(), &body[..half]].concat())],
        Fault::HugeContentLength => vec![
            Step::Bytes(format!("{head}content-length: 10995116277760\r\n\r\n[").into_bytes()),
            Step::Repeat(vec![b' '; 64 << 10], 1 << 10),
        ],
        Fault::EndlessBody => {
            let chunk = [b"10000\r\n".as_slice(), &[b' '; 64 << 10], b"\r\n"].concat();
            vec![
                Step::Bytes(format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes()),
                Step::Repeat(chunk, 16 << 10),
            ]
        }
        Fault::Http10 => {
            let head = head.replacen("HTTP/1.1", "HTTP/1.0", 1);
            vec![Step::Bytes([head.as_bytes(), b"\r\n", &body].concat())]
        }
        Fault::PlainUnderTls => {
            vec![Step::Below(b"this is no TLS record\r\n".to_vec()), answer()]
        }
        Fault::Garbage => vec![Step::Bytes(body)],
        Fault::EarlyHints(times) => vec![
            Step::Repeat(
                b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n".to_vec(),
                *times,
            ),
            answer(),
        ],
        Fault::Continues(times) => {
            vec![Step::Repeat(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), *times), answer()]
        }
        Fault::Upgrade => vec![Step::Bytes(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_vec(),
        )],
        Fault::BareLfHeader => {
            let split = format!(
                "{head}x-split: one\ncontent-length: 2\n\n[]\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            vec![Step::Bytes([split.as_bytes(), &body].concat())]
        }
        // Silence, and whatever was answered before it came here.
        _ => vec![Step::Silence],
    }
}

/// The sign-in page as a client sees it (recorded in `documented/errors.json`).
pub(super) const SIGN_IN: &str = "<!DOCTYPE html><html lang=\"en-US\"><head><title>Azure DevOps Services | Sign In</title></head><body></body></html>";

fn redirect(status: u16, location: String) -> Reply {
    Reply::html(status, "<html><head><title>Object moved</title></head><body></body></html>")
        .header("location", location)
}

fn is_github(seen: &Seen) -> bool {
    seen.path.starts_with("/github")
}

/// A secondary limit (`github/exchanges/secondary-429-retry-after.json`).
fn github_limited() -> Reply {
    let text = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again";
    Reply::json(429, &json!({"message": text, "documentation_url": "https://docs.github.com/rest"}))
}

fn gitlab_limited() -> Reply {
    let text = "This endpoint has been requested too many times. Try again later.";
    Reply::json(429, &json!({"message": {"error": text}}))
}

fn azure_limited() -> Reply {
    let body = json!({"$id": "1", "innerException": null,
        "message": "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource.",
        "typeName": "Microsoft.TeamFoundation.Framework.Server.RequestBlockedException, Microsoft.TeamFoundation.Framework.Server",
        "typeKey": "RequestBlockedException", "errorCode": 0, "eventId": 3000});
    Reply::json(429, &body)
        .header("x-ratelimit-resource", "Core")
        .header("x-ratelimit-delay", 28)
        .header("x-ratelimit-limit", 200)
        .header("x-ratelimit-remaining", 0)
        .header("x-ratelimit-reset", 1_700_000_000)
}

/// The token of a request in clear.
fn token(seen: &Seen) -> String {
    if let Some(token) = seen.header("private-token") {
        return token.to_owned();
    }
    let Some((scheme, value)) = seen.header("authorization").and_then(|v| v.split_once(' ')) else {
        return decode(&seen.query);
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return value.to_owned();
    }
    let clear = base64::engine::general_purpose::STANDARD.decode(value);
    let clear = clear.map(|clear| String::from_utf8_lossy(&clear).into_owned());
    clear.unwrap_or_default().rsplit(':').next().unwrap_or_default().to_owned()
}

fn deep(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// Puts something else behind every `key`.
fn wrong_ids(text: &str, key: &str, wrong: WrongId) -> String {
    let wrong = match wrong {
        WrongId::String => "\"17\"",
        WrongId::Float => "17.5",
        WrongId::Huge => "9223372036854775829",
        WrongId::Exponent => "1e400",
        WrongId::Null => "null",
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(key) {
        out.push_str(before);
        out.push_str(key);
        out.push_str(wrong);
        let end = after.find([',', '}']).unwrap_or(after.len());
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// A gzip stream of `runs` times 258 zero bytes, 13 bits each, written with the fixed Huffman code.
/// The checksum is wrong: whoever gets that far has unpacked it all.
fn gzip_bomb(runs: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits::default();
    // Last block, fixed code; literal 0; then length 258 (code 285), distance 1 (code 0).
    bits.put(&mut out, 0b011, 3);
    bits.put(&mut out, 0b0000_1100, 8);
    for _ in 0..runs {
        bits.put(&mut out, 0b1010_0011, 8);
        bits.put(&mut out, 0, 5);
    }
    bits.put(&mut out, 0, 7);
    bits.put(&mut out, 0, 7);
    out.extend_from_slice(&[0; 8]);
    out
}

/// Bits, least significant first.
#[derive(Default)]
struct Bits {
    pending: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, out: &mut Vec<u8>, value: u32, width: u32) {
        self.pending |= value << self.count;
        self.count += width;
        while self.count >= 8 {
            out.push((self.pending & 0xff) as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }
}
