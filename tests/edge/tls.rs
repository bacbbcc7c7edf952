//! TLS on both faces and to an upstream.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proto::v1::GetStatusRequest;
use rustls::ClientConfig;
use tonic::{Code, Request};

use crate::{
    contract::documented::SAMPLE,
    grpc::{
        client::Client,
        feed::{generated, with},
    },
    serve::SAMPLE_REPLY,
    support::{
        Backend, Connection, Database, Gateway, Reply, dcams, eventually, post, program, run,
        tls::{Authority, Identity, NAMES, Secure, connect},
        until,
    },
};

const CREDENTIALS: &str = "USERNAME:PASSWORD";
const EMAIL: &str = "test@veratad.com";

const HTTP1: &str = "http/1.1";
const HTTP2: &str = "h2";

/// A demo with a certificate by an authority, and whatever else.
fn secured(database: &Database, authority: &Authority, arguments: &[&str]) -> Gateway {
    let (cert, key) = authority.issue(&NAMES).write(database, "server");
    Gateway::start(
        database,
        &[&["--demo", "--tls-cert", &cert, "--tls-key", &key], arguments].concat(),
    )
}

fn rest(gateway: &Gateway, authority: &Authority) -> Secure {
    connect(gateway.rest, &Arc::new(authority.client(HTTP1))).unwrap()
}

/// The reply to the sample, once the password was checked: on a busy machine that may take longer than it may wait.
fn sample(post: impl Fn() -> Reply) -> Reply {
    until("the password is checked", || {
        let reply = post();
        (reply.status != 503).then_some(reply)
    })
}

/// The same address, by the name that certificates have.
fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

/// The value of a metric, be it with labels, that must be there.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    find_metric(gateway, name).unwrap_or_else(|| panic!("no {name}"))
}

fn find_metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let text = gateway.get("/metrics").text().to_owned();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn ask() -> GetStatusRequest {
    GetStatusRequest {
        email: EMAIL.to_owned(),
    }
}

/// Asks for the sample's customer with no credentials.
fn ask_as_certificate(client: &Client) -> Code {
    let mut generated = generated(client);
    match client.block_on(generated.get_status(Request::new(ask()))) {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// Whether a client gets as far as a frame of HTTP/2. One whose certificate is refused finds out only then.
fn is_admitted(address: SocketAddr, config: ClientConfig) -> bool {
    let Ok(connection) = connect(address, &Arc::new(config)) else {
        return false;
    };
    let mut stream = connection.into_stream();
    let _ = stream.write_all(crate::edge::http2::PREFACE);
    let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    stream.read(&mut [0; 9]).is_ok_and(|read| read > 0)
}

#[test]
fn both_faces_speak_tls_and_the_sample_is_answered_byte_by_byte() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let gateway = secured(&database, &authority, &[]);
    let (address, grpc) = (gateway.rest, gateway.grpc.unwrap());
    assert!(
        gateway
            .banner
            .contains(&format!("REST   https://{address}/v3/stable/api/storage\n"))
    );
    assert!(gateway.banner.contains(&format!("gRPC   https://{grpc}\n")));
    assert!(
        gateway
            .banner
            .contains(&format!("https://{address}/v3/stable/api/storage\n"))
    );
    assert!(gateway.banner.contains("grpcurl -insecure"), "{}", gateway.banner);

    let of_plain = Backend::Sqlite.database();
    let plain = Gateway::start(&of_plain, &["--demo"]);
    let without_names = |head: &str| -> Vec<String> {
        let lines = head.lines().filter(|line| {
            !["date", "etag", "x-request-id"]
                .iter()
                .any(|name| line.to_ascii_lowercase().starts_with(name))
        });
        lines.map(str::to_owned).collect()
    };
    let expected = sample(|| plain.post(SAMPLE));
    sample(|| rest(&gateway, &authority).post(SAMPLE));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.client_of(HTTP1, version));
        let mut connection = connect(address, &config).unwrap();
        assert_eq!(connection.protocol(), HTTP1);
        // Twice over one connection.
        for _ in 0..2 {
            let reply = connection.post(SAMPLE);
            assert_eq!((reply.status, reply.text()), (200, SAMPLE_REPLY));
            assert_eq!(without_names(&reply.head), without_names(&expected.head));
        }
    }

    let client = Client::secure(grpc, authority.client(HTTP2));
    let mut service = generated(&client);
    let answer = client.block_on(service.get_status(with(CREDENTIALS, ask()))).unwrap();
    assert_eq!(answer.into_inner().customer.unwrap().reference, "888888812");
    // Neither face speaks the other's protocol.
    assert!(connect(address, &Arc::new(authority.client(HTTP2))).is_err());
    assert!(connect(grpc, &Arc::new(authority.client(HTTP1))).is_err());
    // Who does not know the authority does not speak to it.
    assert!(connect(address, &Arc::new(Authority::new().client(HTTP1))).is_err());
    // The ops listener has no secrets, and no TLS.
    assert_eq!(gateway.get("/healthz").status, 200);
    let openapi = gateway.get("/openapi.json");
    assert!(
        openapi.text().contains(&format!("https://{address}")),
        "{}",
        openapi.text()
    );
    assert_eq!(gateway.stop().code, 0);
}

#[test]
fn who_speaks_plain_text_to_tls_is_closed() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let gateway = secured(&database, &authority, &[]);
    for address in [gateway.rest, gateway.grpc.unwrap()] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&post(SAMPLE.as_bytes())).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(
            ended.as_ref().is_ok()
                || ended
                    .as_ref()
                    .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
            "{ended:?}"
        );
        // An alert of TLS at most: a record of type 21.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    for listener in ["rest", "grpc"] {
        let failures = format!("dcams_tls_handshake_failures_total{{listener=\"{listener}\"}}");
        eventually("the failure is counted", || {
            find_metric(&gateway, &failures) == Some(1.0)
        });
    }
}

#[test]
fn a_handshake_has_little_time_and_takes_a_place() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let gateway = secured(
        &database,
        &authority,
        &["--tls-handshake-timeout", "2s", "--max-connections", "1"],
    );
    for address in [gateway.rest, gateway.grpc.unwrap()] {
        // The beginning of a record of 512 bytes, of a handshake's first message.
        for begun in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
            // The one before gives its place back in its own time.
            let (mut silent, began) = until("a place", || {
                let began = Instant::now();
                let mut silent = TcpStream::connect(address).unwrap();
                silent.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                let is_open = silent
                    .read(&mut [0])
                    .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                is_open.then_some((silent, began))
            });
            silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            silent.write_all(begun).unwrap();
            // It has the only place.
            let mut other = TcpStream::connect(address).unwrap();
            other.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            assert!(matches!(other.read(&mut [0]), Ok(0) | Err(_)));
            assert!(began.elapsed() < Duration::from_secs(2), "the other one was waited for");
            assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
            let took = began.elapsed();
            assert!(
                (Duration::from_millis(1_900)..Duration::from_secs(10)).contains(&took),
                "{took:?}"
            );
            until("there is room again", || {
                let protocol = if address == gateway.rest { HTTP1 } else { HTTP2 };
                connect(address, &Arc::new(authority.client(protocol))).ok()
            });
        }
    }
}

#[test]
fn a_client_of_grpc_needs_a_certificate_where_one_is_demanded() {
    let (database, authority, clients) = (Backend::Sqlite.database(), Authority::new(), Authority::new());
    let ca = database.file("clients.pem", clients.pem()).display().to_string();
    let gateway = secured(&database, &authority, &["--tls-client-ca", &ca]);
    let grpc = gateway.grpc.unwrap();
    let config = |identity: &Identity| authority.client_with(HTTP2, identity);
    assert!(is_admitted(grpc, config(&clients.issue(&["billing.internal"]))));
    assert!(!is_admitted(grpc, authority.client(HTTP2)));
    // By another authority, which is the server's own here.
    assert!(!is_admitted(grpc, config(&authority.issue(&["billing.internal"]))));
    assert!(!is_admitted(
        grpc,
        config(&clients.issue_until(&["billing.internal"], 2020))
    ));
    // Legacy clients have none.
    assert_eq!(sample(|| rest(&gateway, &authority).post(SAMPLE)).text(), SAMPLE_REPLY);

    // A certificate alone is no account, and one without a mapping needs credentials as before.
    let client = Client::secure(grpc, config(&clients.issue(&["billing.internal"])));
    assert_eq!(ask_as_certificate(&client), Code::Unauthenticated);
    let mut service = generated(&client);
    client.block_on(service.get_status(with(CREDENTIALS, ask()))).unwrap();
}

#[test]
fn a_certificate_acts_as_an_account_as_long_as_that_is_enabled() {
    for backend in Backend::BOTH {
        let (database, authority, clients) = (backend.database(), Authority::new(), Authority::new());
        let ca = database.file("clients.pem", clients.pem()).display().to_string();
        let gateway = secured(
            &database,
            &authority,
            &[
                "--tls-client-ca",
                &ca,
                "--tls-client-account",
                "billing.internal=USERNAME,ghost.internal=GHOST",
                "--tls-client-account",
                "other.internal=OTHER",
            ],
        );
        dcams(&database, &["account", "create", "OTHER"], "").ok();
        let client = |name: &str| {
            let identity = clients.issue(&[name]);
            Client::secure(gateway.grpc.unwrap(), authority.client_with(HTTP2, &identity))
        };
        sample(|| rest(&gateway, &authority).post(SAMPLE));
        let billing = client("billing.internal");
        assert_eq!(ask_as_certificate(&billing), Code::Ok);
        // It sees what its account sees, and no more.
        assert_eq!(ask_as_certificate(&client("other.internal")), Code::NotFound);
        assert_eq!(ask_as_certificate(&client("ghost.internal")), Code::Unauthenticated);
        assert_eq!(ask_as_certificate(&client("stranger.internal")), Code::Unauthenticated);

        // Credentials that are sent are the ones that count.
        let mut service = generated(&billing);
        let mut as_other = |credentials: &str| {
            let answer = billing.block_on(service.get_status(with(credentials, ask())));
            answer.map_or_else(|status| status.code(), |_| Code::Ok)
        };
        assert_eq!(as_other("USERNAME:wrong"), Code::Unauthenticated);
        assert_eq!(as_other(CREDENTIALS), Code::Ok);

        // The history says who it was.
        let update = proto::v1::UpdateStatusRequest {
            email: EMAIL.to_owned(),
            status: proto::v1::Status::Fail.into(),
            ..Default::default()
        };
        billing
            .block_on(generated(&billing).update_status(Request::new(update)))
            .unwrap();
        let history = dcams(&database, &["customer", "history", EMAIL, "--account", "USERNAME"], "").ok();
        let last = history.lines().find(|line| line.contains("FAIL")).unwrap();
        assert!(last.contains("grpc") && last.contains("USERNAME"), "{history}");

        // On the connection that is there, with the next call.
        dcams(&database, &["account", "disable", "USERNAME"], "").ok();
        assert_eq!(ask_as_certificate(&billing), Code::Unauthenticated);
        dcams(&database, &["account", "enable", "USERNAME"], "").ok();
        assert_eq!(ask_as_certificate(&billing), Code::Ok);
        // A password is nothing that the certificate depends on.
        dcams(&database, &["account", "set-password", "USERNAME"], "new password\n").ok();
        assert_eq!(ask_as_certificate(&billing), Code::Ok);
    }
}

#[test]
fn a_facade_speaks_tls_to_its_upstream() {
    let (database, authority, clients) = (Backend::Sqlite.database(), Authority::new(), Authority::new());
    let gateway = secured(&database, &authority, &[]);
    let upstream = url(gateway.grpc.unwrap());
    let ca = database.file("ca.pem", authority.pem()).display().to_string();
    let (cert, key) = authority.issue(&NAMES).write(&database, "facade");
    let facade = Gateway::facade_at(
        &upstream,
        &["--upstream-ca", &ca, "--tls-cert", &cert, "--tls-key", &key],
    );
    assert!(
        facade.banner.contains(&format!("calls  gRPC at {upstream}")),
        "{}",
        facade.banner
    );
    assert_eq!(sample(|| rest(&facade, &authority).post(SAMPLE)).text(), SAMPLE_REPLY);
    assert_eq!(facade.get("/readyz").status, 200);

    // By an authority that the facade does not know, and for a name that is not in the certificate.
    let strange = database
        .file("strange.pem", Authority::new().pem())
        .display()
        .to_string();
    let of_unnamed = Backend::Sqlite.database();
    let unnamed = secured(&of_unnamed, &Authority::new(), &[]);
    let other_name = format!("https://127.0.0.2:{}", gateway.grpc.unwrap().port());
    for (upstream, ca) in [
        (&*upstream, &*strange),
        (&url(unnamed.grpc.unwrap()), &*ca),
        (&*other_name, &*ca),
    ] {
        let facade = Gateway::facade_at(upstream, &["--upstream-ca", ca]);
        for _ in 0..3 {
            assert_eq!(facade.post(SAMPLE).status, 503);
        }
        assert_eq!(facade.get("/readyz").status, 503);
        let log = facade.stop().err;
        if upstream != other_name {
            assert_eq!(
                log.matches("there is no TLS connection to the upstream").count(),
                1,
                "{log}"
            );
        }
    }

    // With a certificate of its own, where one is demanded.
    let client_ca = database.file("clients.pem", clients.pem()).display().to_string();
    let mutual_database = Backend::Sqlite.database();
    let mutual = secured(&mutual_database, &authority, &["--tls-client-ca", &client_ca]);
    let upstream = url(mutual.grpc.unwrap());
    let (cert, key) = clients.issue(&["facade.internal"]).write(&database, "client");
    let without = Gateway::facade_at(&upstream, &["--upstream-ca", &ca]);
    // It is refused when the handshake has ended on its side, and cannot tell whether its first request was read.
    assert!([503, 504].contains(&without.post(SAMPLE).status));
    assert_eq!(without.get("/readyz").status, 503);
    let with = Gateway::facade_at(
        &upstream,
        &["--upstream-ca", &ca, "--upstream-cert", &cert, "--upstream-key", &key],
    );
    assert_eq!(sample(|| with.post(SAMPLE)).text(), SAMPLE_REPLY);
    assert_eq!(with.stop().code, 0);
}

/// A folder that a link `..data` leads to, which leads elsewhere at once: as Kubernetes changes a secret.
fn point(to: &Path, link: &Path) {
    let beside = link.with_file_name("..next");
    symlink(to, &beside).unwrap();
    std::fs::rename(beside, link).unwrap();
}

#[test]
fn certificates_are_swapped_under_load_and_nobody_notices() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let link = database.path("..data");
    let identities = [(); 3].map(|()| authority.issue(&NAMES));
    for (number, identity) in identities.iter().enumerate() {
        identity.mount(&database.path(&format!("version-{number}")));
    }
    point(&database.path("version-0"), &link);
    let path = |name: &str| link.join(name).display().to_string();
    let gateway = Gateway::start(
        &database,
        &["--demo", "--tls-cert", &path("tls.crt"), "--tls-key", &path("tls.key")],
    );
    let config = Arc::new(authority.client(HTTP1));
    let mut kept = connect(gateway.rest, &config).unwrap();
    assert_eq!(kept.certificate(), identities[0].der());
    sample(|| connect(gateway.rest, &config).unwrap().post(SAMPLE));

    let (done, requests, calls) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let call = |client: &Client| {
        let message = GetStatusRequest {
            email: EMAIL.to_owned(),
        };
        let answer = client.block_on(generated(client).get_status(with(CREDENTIALS, message)));
        answer.unwrap();
        calls.fetch_add(1, Ordering::Relaxed);
    };
    let address = gateway.grpc.unwrap();
    let kept_client = Client::secure(address, authority.client(HTTP2));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                call(&kept_client);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let client = Client::secure(address, authority.client(HTTP2));
                (0..3).for_each(|_| call(&client));
            }
        });
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut connection = connect(gateway.rest, &config).unwrap();
                    for _ in 0..3 {
                        assert_eq!(connection.post(SAMPLE).text(), SAMPLE_REPLY);
                        requests.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let grpc = Arc::new(authority.client(HTTP2));
        for (number, identity) in identities.iter().enumerate().skip(1) {
            let goes_on = || {
                let before = [&requests, &calls].map(|count| count.load(Ordering::Relaxed));
                eventually("there is load", || {
                    requests.load(Ordering::Relaxed) > before[0] + 10 && calls.load(Ordering::Relaxed) > before[1] + 10
                });
            };
            goes_on();
            point(&database.path(&format!("version-{number}")), &link);
            // The first time it is found by looking, the second time since somebody says so.
            if number == 2 {
                gateway.signal("HUP");
            }
            let is_new = |address, config| connect(address, config).unwrap().certificate() == identity.der();
            eventually("new connections see the new certificate", || {
                is_new(gateway.rest, &config)
            });
            assert!(is_new(address, &grpc));
            goes_on();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(kept.post(SAMPLE).text(), SAMPLE_REPLY);
    let output = gateway.stop();
    assert_eq!(
        (output.code, output.err.contains("stays in use")),
        (0, false),
        "{output:?}"
    );
}

#[test]
fn a_broken_file_is_complained_of_once_and_the_one_before_stays_in_use() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let first = authority.issue_until(&NAMES, 2040);
    let (other, second) = (authority.issue(&NAMES), authority.renew(&first, &NAMES, 2050));
    let (cert, key) = first.write(&database, "server");
    let gateway = Gateway::start(&database, &["--demo", "--tls-cert", &cert, "--tls-key", &key]);
    // At once, and of one file only: a look that somebody has asked for before sees the old one or the new one, and nothing
    // between that it would complain of.
    let replace = |text: &str| std::fs::rename(database.file("beside.pem", text), &cert).unwrap();
    let expiry = "dcams_tls_certificate_expiry_seconds";
    let usable = "dcams_tls_files_usable{files=\"faces\"}";
    // 2040-01-01 and 2050-01-01.
    assert_eq!(
        (metric(&gateway, expiry), metric(&gateway, usable)),
        (2_208_988_800.0, 1.0)
    );

    let config = Arc::new(authority.client(HTTP1));
    let shown = || connect(gateway.rest, &config).unwrap().certificate();
    for broken in ["", "nonsense", &other.cert] {
        replace(broken);
        gateway.signal("HUP");
        eventually("it is found broken", || metric(&gateway, usable) == 0.0);
        gateway.signal("HUP");
        assert_eq!(shown(), first.der());
        assert_eq!(metric(&gateway, expiry), 2_208_988_800.0);
        replace(&first.cert);
        gateway.signal("HUP");
        eventually("it is whole again", || metric(&gateway, usable) == 1.0);
    }
    replace(&second.cert);
    gateway.signal("HUP");
    eventually("the new one is in use", || shown() == second.der());
    assert_eq!(metric(&gateway, expiry), 2_524_608_000.0);
    let log = gateway.stop().err;
    let complaints: Vec<_> = log.lines().filter(|line| line.contains("stays in use")).collect();
    assert_eq!(complaints.len(), 3, "{log}");
    assert!(complaints[0].contains("server.pem has no certificate"), "{log}");
    assert!(
        complaints[2].contains("server.key is not the key of the certificate"),
        "{log}"
    );
}

#[test]
fn the_authorities_of_clients_are_read_anew_as_well() {
    let (database, authority, clients) = (Backend::Sqlite.database(), Authority::new(), Authority::new());
    let ca = database
        .file("clients.pem", Authority::new().pem())
        .display()
        .to_string();
    let gateway = secured(&database, &authority, &["--tls-client-ca", &ca]);
    let identity = clients.issue(&["billing.internal"]);
    let admitted = || is_admitted(gateway.grpc.unwrap(), authority.client_with(HTTP2, &identity));
    assert!(!admitted());
    database.file("clients.pem", clients.pem());
    gateway.signal("HUP");
    eventually("its authority is known", admitted);
}

#[test]
fn plain_text_to_the_world_is_asked_for() {
    let database = Backend::Sqlite.database();
    for (flag, address, name) in [("--rest-addr", "0.0.0.0:0", "REST"), ("--grpc-addr", "[::]:0", "gRPC")] {
        let line = dcams(&database, &["serve", flag, address], "").fails(1);
        assert!(
            line.starts_with(&format!("{name} would speak plain text on {address}")),
            "{line}"
        );
        assert!(
            line.contains("--tls-cert") && line.contains("--insecure-plaintext"),
            "{line}"
        );
    }
    let line = dcams(&database, &["serve", "--upstream", "http://gateway.internal:50051"], "").fails(1);
    assert!(
        line.contains("plain text") && line.contains("--insecure-plaintext"),
        "{line}"
    );
    // Refused before anything was made.
    let line = dcams(&database, &["migrate", "--check"], "").fails(1);
    assert!(line.contains("not up to date"), "{line}");

    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let gateway = Gateway::start_at(&database, everywhere, &["--insecure-plaintext"]);
    assert_eq!(gateway.stop().code, 0);
    let (cert, key) = Authority::new().issue(&NAMES).write(&database, "server");
    let gateway = Gateway::start_at(&database, everywhere, &["--tls-cert", &cert, "--tls-key", &key]);
    assert_eq!(gateway.stop().code, 0);
    // A facade has no gRPC face.
    let facade = Gateway::facade_at("http://localhost:1", &["--grpc-addr", "0.0.0.0:0"]);
    assert_eq!(facade.stop().code, 0);
}

#[test]
fn what_is_wrong_with_the_files_is_one_line() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let (cert, key) = authority.issue(&NAMES).write(&database, "server");
    let (other_cert, other_key) = authority.issue(&NAMES).write(&database, "other");
    let file = |name: &str, content: &str| database.file(name, content).display().to_string();
    let nothing = file("nothing.pem", "");
    let garbage = file(
        "garbage.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let torn = file("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA");
    let with_passphrase = file(
        "passphrase.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let large = file("large.pem", &"a".repeat(1024 * 1024 + 1));
    let absent = database.path("absent.pem").display().to_string();
    for (cert, key, says) in [
        (&absent, &key, "TLS: cannot read "),
        (&cert, &absent, "TLS: cannot read "),
        (&large, &key, "more than 1048576 bytes"),
        (&nothing, &key, "has no certificate"),
        (&torn, &key, "is not a PEM file"),
        (&garbage, &key, "cannot be understood"),
        (&cert, &nothing, "has no private key"),
        (
            &cert,
            &with_passphrase,
            "has no private key, or one that needs a passphrase",
        ),
        (&cert, &other_key, "is not the key of the certificate"),
        (&other_cert, &key, "is not the key of the certificate"),
    ] {
        let line = dcams(&database, &["serve", "--tls-cert", cert, "--tls-key", key], "").fails(1);
        assert!(line.contains(says), "{line}");
    }
    let pair = ["serve", "--tls-cert", &cert, "--tls-key", &key];
    let line = dcams(&database, &[&pair[..], &["--tls-client-ca", &garbage]].concat(), "").fails(1);
    assert!(line.contains("cannot be an authority"), "{line}");
    let line = dcams(
        &database,
        &["serve", "--upstream", "http://localhost:1", "--upstream-ca", &cert],
        "",
    )
    .fails(1);
    assert!(line.contains("need an --upstream of https"), "{line}");
    let https = ["serve", "--upstream", "https://localhost:1"];
    let line = dcams(&database, &[&https[..], &["--upstream-ca", &nothing]].concat(), "").fails(1);
    assert!(
        line.starts_with("TLS to the upstream: ") && line.contains("has no certificate"),
        "{line}"
    );

    for arguments in [
        &["--tls-cert", &cert][..],
        &["--tls-key", &key],
        &["--tls-client-ca", &cert],
        &["--upstream-ca", &cert],
        &["--upstream", "https://localhost:1", "--upstream-cert", &cert],
        &[
            "--upstream",
            "https://localhost:1",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-client-ca",
            &cert,
        ],
        &["--tls-cert", &cert, "--tls-key", &key, "--tls-client-account", "a=b"],
        &[
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-client-ca",
            &cert,
            "--tls-client-account",
            "a",
        ],
    ] {
        let mut command = program();
        command.arg("serve").args(arguments);
        run(&mut command, "").fails(2);
    }
}

#[test]
fn the_place_of_a_connection_is_used_again() {
    let (database, authority) = (Backend::Sqlite.database(), Authority::new());
    let gateway = secured(&database, &authority, &["--max-connections", "1"]);
    for _ in 0..20 {
        // A handshake that fails, one that is given up, and a request.
        until("a place for plain text", || {
            let mut plain = Connection::open(gateway.rest);
            (plain.try_exchange(b"GET / HTTP/1.1\r\n\r\n").is_err()).then_some(())
        });
        drop(TcpStream::connect(gateway.rest).unwrap());
        until("a place for TLS", || {
            let mut connection = connect(gateway.rest, &Arc::new(authority.client(HTTP1))).ok()?;
            connection.try_exchange(&post(SAMPLE.as_bytes())).ok()
        });
    }
}
