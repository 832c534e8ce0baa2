//! Answers that a hostile or broken server gives.

use super::*;

#[tokio::test]
async fn h01_h07_a_redirect_to_another_origin_is_not_dialled() {
    let other = Server::start(|_, _| Say::answer("200 OK", "", "")).await;
    let location = format!("location: http://{}/\r\n", other.address);
    let server = Server::start(move |_, _| Say::answer("302 Found", &location, "")).await;
    assert!(is_garbled(&get(&plain(&server), &server).await));
    assert_eq!((server.requests().len(), other.connections()), (1, 0));
}

#[tokio::test]
async fn h03_the_body_of_a_post_is_not_sent_again() {
    let server = Server::start(|_, _| Say::answer("307 Temporary Redirect", "location: /y\r\n", "")).await;
    let url = format!("http://{}/x", server.address);
    let mut post = request(Method::POST, &url, 20);
    *post.body_mut() = Bytes::from_static(b"body");
    assert!(is_garbled(&plain(&server).send(post).await));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn h06_a_redirect_to_itself_ends_after_three() {
    let server = Server::start(|_, _| Say::answer("301 Moved", "location: /x\r\n", "")).await;
    assert!(is_garbled(&get(&plain(&server), &server).await));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn redirects_can_be_left_to_the_caller() {
    let server = Server::start(|_, _| Say::answer("302 Found", "location: /y\r\n", "")).await;
    let mut get = request(Method::GET, &format!("http://{}/x", server.address), 20);
    get.extensions_mut().insert(Redirects::Return);
    let response = plain(&server).send(get).await.expect("an answer");
    assert_eq!((response.status().as_u16(), server.requests().len()), (302, 1));
}

#[tokio::test]
async fn h09_an_unknown_content_coding_is_refused() {
    for coding in ["br", "gzip, gzip", "br, gzip, gzip", "zstd", "nonsense"] {
        let headers = format!("content-encoding: {coding}\r\n");
        let server = Server::start(move |_, _| Say::answer("200 OK", &headers, "xx")).await;
        assert!(is_garbled(&get(&plain(&server), &server).await), "{coding}");
    }
    let server = Server::start(|_, _| Say::answer("200 OK", "content-encoding: gzip\r\n", "no gzip")).await;
    assert!(is_garbled(&get(&plain(&server), &server).await));
}

#[tokio::test]
async fn h10_an_announced_ten_terabytes_are_not_read() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10995116277760\r\n\r\nxxx";
    let server = Server::start(move |_, _| Say::new(head, Then::Hang)).await;
    assert!(is_garbled(&get(&plain(&server), &server).await));
}

#[tokio::test]
async fn what_unpacks_to_more_than_the_limit_is_cut_off() {
    let server = Server::start(|_, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n".to_vec();
        bytes.extend(zeros_in_gzip());
        Say { bytes, then: Then::Close }
    })
    .await;
    assert_eq!(
        get(&plain(&server), &server).await,
        Err(TransportError::Garbled { problem: "the answer is too large" })
    );
}

/// A gzip stream of about two million zeros in 13 KB: one literal, then copies of 258 bytes.
fn zeros_in_gzip() -> Vec<u8> {
    // Fixed Huffman codes: literal 0 is 00110000, length 258 is 11000101, distance 1 is 00000, the end 0000000.
    let mut bits: Vec<bool> = vec![true, true, false];
    let mut code = |text: &str| bits.extend(text.bytes().map(|bit| bit == b'1'));
    code("00110000");
    for _ in 0..8_000 {
        code("1100010100000");
    }
    code("0000000");
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for byte in bits.chunks(8) {
        bytes.push(byte.iter().enumerate().fold(0, |all, (at, bit)| all | u8::from(*bit) << at));
    }
    // Checksum and length are not reached.
    bytes.extend([0; 8]);
    bytes
}

#[tokio::test(start_paused = true)]
async fn h12_a_trickling_body_is_cut_and_its_connection_not_used_again() {
    let server = Server::start(|number, _| match number {
        0 => Say::new("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", Then::Trickle),
        _ => Say::answer("200 OK", "", "ok"),
    })
    .await;
    let (transport, start) = (plain(&server), Instant::now());
    let url = format!("http://{}/x", server.address);
    let cut = read(transport.send(request(Method::GET, &url, 60)).await.expect("a head")).await;
    assert_eq!((cut, start.elapsed().as_secs()), (Err(TransportError::Timeout), 30));
    assert_eq!(get(&transport, &server).await, Ok((200, Bytes::from_static(b"ok"))));
    assert_eq!(server.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn h13_h39_a_head_that_does_not_end_is_cut_with_the_attempt() {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000);
    let continues = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
    for (start, then) in
        [("HTTP/1.1 200 OK\r\nx: ", Then::Trickle), (&*hints, Then::Hang), (&*continues, Then::Hang)]
    {
        let start = start.to_owned();
        let server = Server::start(move |_, _| Say::new(&start, then)).await;
        let begun = Instant::now();
        let post = request(Method::POST, &format!("http://{}/x", server.address), 60);
        assert_eq!(plain(&server).send(post).await.map(|_| ()), Err(TransportError::Timeout));
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}

#[tokio::test]
async fn h15_a_break_before_the_head_is_tried_again_only_for_get() {
    let server = Server::start(|number, _| match number {
        0 => Say::new("", Then::Close),
        _ => Say::answer("200 OK", "", "ok"),
    })
    .await;
    assert_eq!(get(&plain(&server), &server).await, Ok((200, Bytes::from_static(b"ok"))));
    let server = Server::start(|_, _| Say::new("", Then::Close)).await;
    let post = request(Method::POST, &format!("http://{}/x", server.address), 20);
    assert_eq!(plain(&server).send(post).await.map(|_| ()), Err(READ));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn h15_a_body_that_breaks_off_is_unreachable() {
    for start in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf",
    ] {
        let server = Server::start(move |_, _| Say::new(start, Then::Close)).await;
        assert_eq!(get(&plain(&server), &server).await, Err(READ), "{start:?}");
    }
}

#[tokio::test]
async fn h16_what_is_not_http_1_1_is_refused() {
    for answer in [
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "<html>no head</html>\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
    ] {
        let server = Server::start(move |_, _| Say::new(answer, Then::Close)).await;
        let result = get(&plain(&server), &server).await;
        assert!(is_garbled(&result), "{answer:?} {result:?}");
    }
}

#[tokio::test]
async fn h34_h36_a_refusal_for_the_rate_is_told_with_its_pause() {
    for (status, headers, seconds) in [
        ("429 Too Many Requests", "retry-after: 300\r\n", 300),
        ("429 Too Many Requests", "retry-after: 1000000000000\r\n", 3_600),
        ("429 Too Many Requests", "retry-after: abc\r\n", 60),
        ("403 Forbidden", "retry-after: 300\r\nx-ratelimit-limit: 9\r\nx-ratelimit-remaining: 4\r\n", 300),
    ] {
        let server = Server::start(move |_, _| Say::answer(status, headers, "")).await;
        let transport = plain(&server);
        let after = Duration::from_secs(seconds);
        assert_eq!(get(&transport, &server).await, Err(TransportError::RateLimited { after }), "{headers}");
        // The second call is not even sent.
        assert!(matches!(get(&transport, &server).await, Err(TransportError::RateLimited { .. })));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn h36_a_short_pause_is_waited_for() {
    let server = Server::start(|number, _| match number {
        0 => Say::answer("429 Too Many Requests", "retry-after: 1\r\n", ""),
        _ => Say::answer("200 OK", "", "ok"),
    })
    .await;
    assert_eq!(get(&plain(&server), &server).await, Ok((200, Bytes::from_static(b"ok"))));
}

#[tokio::test]
async fn h39_another_protocol_is_refused() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let server = Server::start(move |_, _| Say::new(upgrade, Then::Close)).await;
    let result = get(&plain(&server), &server).await;
    assert!(is_garbled(&result), "{result:?}");
}

#[tokio::test]
async fn h40_a_header_with_a_control_character_is_refused() {
    for header in ["x: a\rb", "x: a\0b", "x y: a", "x: a\r\n folded: b"] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{header}\r\n\r\n");
        let server = Server::start(move |_, _| Say::new(&answer, Then::Close)).await;
        let result = get(&plain(&server), &server).await;
        assert!(is_garbled(&result), "{header:?} {result:?}");
    }
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let headers: String = (0..200).map(|at| format!("x-{at}: y\r\n")).collect();
    let server = Server::start(move |_, _| Say::answer("200 OK", &headers, "")).await;
    assert!(is_garbled(&get(&plain(&server), &server).await));
}

#[tokio::test]
async fn h42_an_echoed_token_is_in_no_error() {
    let server = Server::start(|_, request| {
        let echo = request.replace("\r\n", " ");
        Say::answer("200 canary-token", &format!("content-encoding: canary-token\r\nx: {echo}\r\n"), request)
    })
    .await;
    let error = get(&plain(&server), &server).await.expect_err("an unknown coding");
    assert!(!format!("{error:?} {error}").contains("canary"));
}

#[tokio::test]
async fn a_link_to_another_origin_is_not_dialled() {
    let other = Server::start(|_, _| Say::answer("200 OK", "", "")).await;
    let server = Server::start(|_, _| Say::answer("200 OK", "", "")).await;
    for url in [format!("http://{}/x", other.address), format!("http://user@{}/x", server.address)] {
        assert!(is_garbled(&plain(&server).send(request(Method::GET, &url, 20)).await), "{url}");
    }
    assert_eq!((server.connections(), other.connections()), (0, 0));
}

#[tokio::test]
async fn a_closed_port_fails_at_connect() {
    let server = Server::start(|_, _| Say::answer("200 OK", "", "")).await;
    let transport = plain(&server);
    let url = format!("http://{}/x", server.address);
    drop(server);
    // The task that listened ends at the next turn of the runtime.
    tokio::task::yield_now().await;
    let result = transport.send(request(Method::GET, &url, 20)).await;
    assert_eq!(result.map(|_| ()), Err(TransportError::Unreachable { phase: Phase::Connect }));
}
