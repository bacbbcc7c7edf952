//! A browser without a window: Chromium, told over its DevTools protocol what a person would do.
//!
//! The protocol goes over two pipes, each message a JSON object that ends with a zero byte: no port, and no library.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser may take for one step. A test fails rather than hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. It is ended when this is dropped.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    /// What came while an answer was waited for.
    events: VecDeque<Value>,
    last: u64,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser that can reach loopback addresses alone, with an empty profile of its own.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let program = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok())
            .expect("Chromium is not on this machine: tests/run installs it");
        // The protocol is spoken on the descriptors 3 and 4, which only a shell can give a child without unsafe code.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, program])
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                // Tests may run as root, and in containers with a small /dev/shm.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-extensions",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--window-size=1280,2000",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self {
            commands: child.stdin.take().unwrap(),
            messages: read(child.stdout.take().unwrap()),
            child,
            events: VecDeque::new(),
            last: 0,
            session: String::new(),
            _profile: profile,
        };
        let page = browser.command("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.command(
            "Target.attachToTarget",
            json!({ "targetId": page["targetId"], "flatten": true }),
        );
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a page of an address, and waits until all that it refers to is loaded.
    pub fn open(&mut self, address: SocketAddr, path: &str) {
        let opened = self.command("Page.navigate", json!({ "url": format!("http://{address}{path}") }));
        assert!(opened["errorText"].is_null(), "{opened}");
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done(true) : addEventListener('load', () => done(true)))",
        );
    }

    /// Waits until the page has something that `selector` finds, and says what text it has.
    pub fn text(&mut self, selector: &str) -> String {
        let expression = format!(
            "new Promise(done => {{
                const look = () => document.querySelector({selector:?});
                const found = look();
                if (found) return done(found.value ?? found.textContent);
                new MutationObserver((_, observer) => {{
                    const found = look();
                    if (found) {{ observer.disconnect(); done(found.value ?? found.textContent); }}
                }}).observe(document, {{ childList: true, subtree: true, attributes: true }});
            }})"
        );
        self.evaluate(&expression).as_str().unwrap().to_owned()
    }

    /// Clicks where `selector` finds something, once it is there, with the mouse.
    pub fn click(&mut self, selector: &str) {
        self.text(selector);
        let place = self.evaluate(&format!(
            "(() => {{
                const found = document.querySelector({selector:?});
                found.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                const box = found.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            self.command(
                "Input.dispatchMouseEvent",
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 }),
            );
        }
    }

    /// Replaces what stands in a field by what somebody pastes.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.click(selector);
        self.command(
            "Input.dispatchKeyEvent",
            json!({ "type": "keyDown", "key": "a", "code": "KeyA", "modifiers": 2, "commands": ["selectAll"] }),
        );
        self.command(
            "Input.dispatchKeyEvent",
            json!({ "type": "keyUp", "key": "a", "code": "KeyA" }),
        );
        self.command("Input.insertText", json!({ "text": text }));
        let held = self.text(selector);
        // A field of many lines has its own line ends.
        assert_eq!(held.trim_end(), text.trim_end());
    }

    /// What an expression of JavaScript comes to; a promise is waited for.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.command(
            "Runtime.evaluate",
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true }),
        );
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }

    /// The URLs of all that the page has asked for.
    pub fn requested(&self) -> Vec<String> {
        self.events("Network.requestWillBeSent")
            .map(|event| event["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// What the browser has complained about: violations of a policy, failed loads, exceptions.
    pub fn complaints(&self) -> Vec<String> {
        let logged = self.events("Log.entryAdded").map(|event| &event["entry"]);
        let errors = logged.filter(|entry| entry["level"] == "error");
        errors
            .chain(self.events("Runtime.exceptionThrown"))
            .map(Value::to_string)
            .collect()
    }

    fn events(&self, method: &str) -> impl Iterator<Item = &Value> {
        let of_this_kind = self.events.iter().filter(move |event| event["method"] == method);
        of_this_kind.map(|event| &event["params"])
    }

    #[track_caller]
    fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        let text = command.to_string();
        self.commands.write_all(text.as_bytes()).unwrap();
        self.commands.write_all(b"\0").unwrap();
        loop {
            let message = match self.messages.recv_timeout(PATIENCE) {
                Ok(message) => message,
                Err(error) => panic!("{method} had no answer ({error}): {text}"),
            };
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }
}

/// Reads messages on a thread, so that a browser that says nothing can be waited for with an end.
fn read(pipe: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for message in BufReader::new(pipe).split(b'\0') {
            let Ok(message) = message else { return };
            if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
