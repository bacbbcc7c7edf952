//! TLS to PostgreSQL, and URLs of many hosts.

use std::net::{Ipv4Addr, TcpListener};

use tokio::net::TcpSocket;

use crate::support::{Cluster, Database, Durability, Gateway, dcams, eventually, tls::Authority};

const UPDATE: &str = r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#;

/// A database of a server that speaks TLS only, at a host, with whatever else.
fn at(cluster: &Cluster, host: &str, query: &str) -> String {
    let url = cluster.create_database();
    format!("{}?{query}", url.replace("127.0.0.1", host))
}

#[test]
fn a_server_is_known_by_its_certificate() {
    let authority = Authority::new();
    let cluster = Cluster::start_with_tls(&authority.issue(&["localhost"]));
    let folder = Database::at(String::new());
    let ca = folder.file("ca.pem", authority.pem()).display().to_string();
    let strange = folder.file("strange.pem", Authority::new().pem()).display().to_string();

    let database = Database::at(at(
        &cluster,
        "localhost",
        &format!("sslmode=verify-full&sslrootcert={ca}"),
    ));
    let gateway = Gateway::start(&database, &["--demo"]);
    assert_eq!(gateway.post(UPDATE).status, 200);
    // The readers as well as the writers.
    let ours = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'dcams-gateway'";
    let mut session = database.session();
    assert!(session.number(&format!("(SELECT count(*) {ours} AND ssl)")) > 1);
    assert_eq!(session.number(&format!("(SELECT count(*) {ours} AND NOT ssl)")), 0);
    assert_eq!(gateway.stop().code, 0);

    for (host, query, says) in [
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={strange}"),
            "certificate verify failed",
        ),
        // The server's name is localhost; without the check of the name that does.
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={ca}"),
            "does not match host name",
        ),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={ca}.absent"),
            "does not exist",
        ),
        (
            "localhost",
            "sslmode=require&sslrootcert=system".to_owned(),
            "weak sslmode",
        ),
        // No public authority vouches for this one.
        (
            "localhost",
            "sslrootcert=system".to_owned(),
            "certificate verify failed",
        ),
        ("localhost", "sslmode=disable".to_owned(), "no encryption"),
    ] {
        let database = Database::at(at(&cluster, host, &query));
        let line = dcams(&database, &["serve"], "").fails(1);
        assert!(
            line.starts_with("the store postgres://") && line.contains(says),
            "{line}"
        );
        let line = dcams(&database, &["account", "list"], "").fails(1);
        assert!(line.contains(says), "{line}");
    }
    let database = Database::at(at(
        &cluster,
        "127.0.0.1",
        &format!("sslmode=verify-ca&sslrootcert={ca}"),
    ));
    dcams(&database, &["account", "list"], "").ok();
}

#[test]
fn of_many_hosts_one_that_answers_is_taken() {
    let cluster = Cluster::shared();
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    // Bound and not listening: who connects is refused.
    let dead = taken.local_addr().unwrap().port();
    let url = cluster.create_database();
    let two = url.replace("127.0.0.1:", &format!("127.0.0.1:{dead},127.0.0.1:"));
    let database = Database::at(format!("{two}?target_session_attrs=read-write"));
    let gateway = Gateway::start(&database, &["--demo"]);
    let shown = two.replace("postgres@", "");
    assert!(
        gateway.banner.contains(&format!("store  {shown}\n")),
        "{}",
        gateway.banner
    );
    assert_eq!(gateway.post(UPDATE).status, 200);
    assert_eq!(gateway.stop().code, 0);

    // None of them answers, in one line that names them all.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let database = Database::at(format!("postgres://u:canary@127.0.0.1:{dead},127.0.0.1:{closed}/d"));
    let line = dcams(&database, &["account", "list"], "").fails(1);
    assert!(
        line.contains(&format!("port {dead}")) && line.contains(&format!("port {closed}")),
        "{line}"
    );
    assert!(!line.contains("canary"), "{line}");
    let database = Database::at(format!("{two}?target_session_attrs=canary"));
    let line = dcams(&database, &["account", "list"], "").fails(1);
    assert!(line.contains("invalid target_session_attrs value"), "{line}");
}

#[test]
fn after_a_failover_the_new_primary_is_written_to() {
    let primary = Cluster::start(Durability::None);
    let url = primary.create_database();
    let first = Database::at(url.clone());
    // What there is, is in the copy.
    assert_eq!(Gateway::start(&first, &["--demo"]).stop().code, 0);
    let standby = primary.standby();
    // The one that takes no writes comes first.
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let here = format!("127.0.0.1:{}", primary.port());
    let database = Database::at(format!(
        "{}?target_session_attrs=read-write",
        url.replace(&here, &hosts)
    ));
    let gateway = Gateway::start(&database, &[]);
    assert_eq!(gateway.post(UPDATE).status, 200);
    assert_eq!(gateway.get("/readyz").status, 200);
    let epoch = |database: &Database| database.session().number("(SELECT max(epoch) FROM status_changes)");
    let before = epoch(&first);

    // The last change has to be over there before the primary dies.
    let second = Database::at(url.replace(&here, &format!("127.0.0.1:{}", standby.port())));
    let changes = "(SELECT count(*) FROM status_changes)";
    let made = first.session().number(changes);
    eventually("the standby has it all", || second.session().number(changes) == made);
    let outage = primary.stop();
    eventually("nothing is written", || {
        gateway.post(UPDATE.replace("PASS\"}", "FAIL\"}")).status == 503
    });
    standby.promote();
    eventually("the new primary is written to", || {
        gateway.post(UPDATE.replace("PASS\"}", "FAIL\"}")).status == 200
    });
    eventually("the gateway is ready", || gateway.get("/readyz").status == 200);
    // The places of the feed begin anew with another server, so that nothing is missed.
    assert_eq!(epoch(&second), before + 1);
    assert_eq!(second.session().number(changes), made + 1);
    assert_eq!(gateway.stop().code, 0);
    drop(outage);
}

#[test]
fn a_server_that_takes_no_writes_any_more_is_left() {
    let (old, new) = (Cluster::start(Durability::None), Cluster::start(Durability::None));
    // The first database of each, under one name.
    let (url, other) = (old.create_database(), new.create_database());
    let demo = |url: &str| {
        let database = Database::at(url.to_owned());
        assert_eq!(Gateway::start(&database, &["--demo"]).stop().code, 0);
        database
    };
    let (first, second) = (demo(&url), demo(&other));
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", old.port(), new.port());
    let here = format!("127.0.0.1:{}", old.port());
    let database = Database::at(format!(
        "{}?target_session_attrs=read-write",
        url.replace(&here, &hosts)
    ));
    let gateway = Gateway::start(&database, &[]);
    assert_eq!(gateway.post(UPDATE).status, 200);
    let changes = |database: &Database| database.session().number("(SELECT count(*) FROM status_changes)");
    let (at_first, at_second) = (changes(&first), changes(&second));
    // Its connections stay, and only take no more writes.
    let mut session = first.session();
    session.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    session.execute("SELECT pg_reload_conf()");
    eventually("the other one is written to", || {
        gateway.post(UPDATE).status == 200 && changes(&second) > at_second
    });
    assert_eq!(changes(&first), at_first);
    assert_eq!(gateway.stop().code, 0);
}
