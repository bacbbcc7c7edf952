//! What a supervisor, an orchestrator or a package needs of the program.

use std::{fs, os::unix::net::UnixDatagram, path::Path, time::Duration};

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
    command
        .env("http_proxy", "http://127.0.0.1:1")
        .env("HTTP_PROXY", "http://127.0.0.1:1");
    assert_eq!(
        run(command.args(["health", "--ops-addr", &address]), "").ok(),
        "ready\n"
    );
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

/// What the packages configure is what the program takes.
#[test]
fn the_configurations_of_the_packages_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().display().to_string();
    fs::write(folder.path().join("store"), "postgres://dcams:hush@db.example/dcams\n").unwrap();
    for name in ["config.toml", "kubernetes/config.toml"] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        let file = folder.path().join("config.toml");
        fs::write(&file, text.replace("/run/secrets/dcams-gateway", &secrets)).unwrap();
        let checked = run(program().args(["config", "check"]).arg(&file), "").ok();
        assert!(checked.contains(" keys count"), "{name}: {checked}");
    }
}

/// Supervisors are told to run what there is.
#[test]
fn the_commands_of_the_packages_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let unit = read("dcams-gateway.service");
    let of_unit = unit
        .lines()
        .filter(|line| line.starts_with("Exec"))
        .filter_map(|line| line.split_once("/usr/bin/dcams-gateway "))
        .map(|(_, arguments)| arguments.to_owned());
    let image = read("Dockerfile");
    let of_image = image
        .lines()
        .filter_map(|line| line.trim().strip_prefix("CMD ["))
        .map(|words| words.trim_end_matches(']').replace(['"', ','], ""))
        .map(|words| words.trim_start_matches("/usr/bin/dcams-gateway").trim().to_owned());
    let commands: Vec<String> = of_unit.chain(of_image).collect();
    assert_eq!(commands, ["serve", "health", "serve"]);
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        run(program().args(words).arg("--help"), "").ok();
    }
}
