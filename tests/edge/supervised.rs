//! What a supervisor, an orchestrator or a package needs of the program.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::Command,
    time::Duration,
};

use crate::support::{Backend, Gateway, program, run};

#[test]
fn health_tells_whether_a_gateway_serves() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    let address = gateway.ops.to_string();
    let health = |arguments: &[&str]| run(program().arg("health").args(arguments), "");
    assert_eq!(health(&["--ops-addr", &address]).ok(), "ready\n");
    assert_eq!(health(&["--ops-addr", &address, "--live"]).ok(), "alive\n");
    // As a gateway that listens everywhere has it in its configuration.
    let everywhere = format!("0.0.0.0:{}", gateway.ops.port());
    let config = database.file("c.toml", format!("ops_addr = \"{everywhere}\"\nreaders = 3\n"));
    assert_eq!(health(&["--config", &config.display().to_string()]).ok(), "ready\n");
    let asked = run(program().arg("health").env("DCAMS_OPS_ADDR", &everywhere), "");
    assert_eq!(asked.ok(), "ready\n");
    // No proxy stands between a supervisor and what it supervises.
    let mut command = program();
    command.env("http_proxy", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    assert_eq!(run(command.args(["health", "--ops-addr", &address]), "").ok(), "ready\n");
    gateway.stop().ok();
    let wrong = health(&["--ops-addr", &address]).fails(1);
    assert!(wrong.contains(&address), "{wrong}");
}

/// A facade lives while its upstream is gone, but serves nobody.
#[test]
fn a_gateway_that_cannot_serve_is_alive_and_not_ready() {
    let facade = Gateway::facade_of("127.0.0.1:1".parse().unwrap(), &[]);
    let address = facade.ops.to_string();
    let wrong = run(program().args(["health", "--ops-addr", &address]), "").fails(1);
    assert!(wrong.contains("503"), "{wrong}");
    let live = run(program().args(["health", "--live", "--ops-addr", &address]), "");
    assert_eq!(live.ok(), "alive\n");
}

/// As systemd does it for a unit of `Type=notify`.
#[test]
fn the_service_manager_is_told_when_a_gateway_is_ready_and_when_it_stops() {
    let database = Backend::Sqlite.database();
    let path = database.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = program();
    command.env("NOTIFY_SOCKET", &path);
    let gateway = Gateway::start_of(command, &database, "127.0.0.1:0".parse().unwrap(), &[]);
    assert_eq!(told().trim(), "READY=1");
    gateway.signal("TERM");
    assert_eq!(told().trim(), "STOPPING=1");
    gateway.stop().ok();
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    run(program().arg("man").arg(&pages), "").ok();
    for (page, says) in [
        ("dcams-gateway.1", "Keeps the verification status of customers"),
        ("dcams-gateway-serve.1", "DCAMS_REST_ADDR"),
        ("dcams-gateway-customer-set-status.1", "PASS, PENDING or FAIL"),
        ("dcams-gateway-config-check.1", "PATH"),
    ] {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.starts_with(".ie") && text.contains(".TH "), "{page}: {text}");
        assert!(text.replace("\\-", "-").contains(says), "{page}: {text}");
    }
    let printed = run(program().arg("man"), "").ok();
    assert_eq!(printed, fs::read_to_string(pages.join("dcams-gateway.1")).unwrap());
}

/// The packages are made from these: one that is not there any more is seen here and not at the next release.
#[test]
fn the_packages_name_files_and_commands_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    // The commands by which containers and units start the program are such as it takes.
    for (file, command) in [
        ("packaging/Dockerfile", &["health", "--help"][..]),
        ("packaging/dcams-gateway.service", &["serve", "--help"]),
    ] {
        assert!(read(file).contains(command[0]), "{file}");
        run(Command::new(env!("CARGO_BIN_EXE_dcams-gateway")).args(command), "").ok();
    }
}
