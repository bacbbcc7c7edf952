//! `keys`: the master keys, and encryption of a whole store.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::ExposeSecret;
use store::{Encryption, Keys, Progress, Settings};

use crate::cli::{KeysCommand, StoreOptions};

pub(crate) async fn run(location: &StoreOptions, command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate { number } => {
            let source = location.keys.source().filter(|_| number.is_none());
            let number = match source {
                Some(source) => source
                    .next_number()?
                    .context("there is no larger number: see --number")?,
                None => number.unwrap_or(1),
            };
            say!("{}", Keys::generate(number).expose_secret())
        }
        KeysCommand::Rotate => {
            let keys = given(location)?;
            let rotated = convert(location, &keys, "rotating", |encryption, progress| {
                encryption.rotate(progress)
            });
            let rotated = rotated.await?;
            say!(
                "all keys are wrapped by master key {}; {rotated} were wrapped by another before",
                keys.current()
            )
        }
        KeysCommand::Encrypt => {
            let keys = given(location)?;
            let encrypted = convert(location, &keys, "encrypting", |encryption, progress| {
                encryption.encrypt(progress)
            });
            let encrypted = encrypted.await?;
            say!("the store is encrypted; {encrypted} of its customers were in clear text before")
        }
    }
}

/// The keys that a command cannot do without.
fn given(location: &StoreOptions) -> anyhow::Result<Keys> {
    location
        .keys
        .load()?
        .context("no key was given: `dcams-gateway keys generate` makes one, and --key-file takes it")
}

/// Converts the store, off the threads that serve, with a bar that shows on a terminal only.
async fn convert(
    location: &StoreOptions,
    keys: &Keys,
    what: &'static str,
    how: impl FnOnce(&mut Encryption, &mut dyn FnMut(Progress)) -> store::Result<u64> + Send + 'static,
) -> anyhow::Result<u64> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")?;
    let bar = ProgressBar::no_length().with_style(style).with_message(what);
    let (place, keys) = (location.location()?, keys.clone());
    let shown = place.to_string();
    let converted = tokio::task::spawn_blocking(move || {
        let mut encryption = Encryption::open(&place, &Settings::default(), &keys)?;
        let converted = how(&mut encryption, &mut |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        });
        bar.finish_and_clear();
        converted
    });
    converted.await?.with_context(|| format!("the store {shown}"))
}
