//! Brings the schema of either database to what this program needs; the SQL is in migrations/ and in the binary.

use std::str::FromStr;

use diesel::{Connection, connection::SimpleConnection, migration::MigrationSource, result::Error as Diesel};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{
    Error, Result,
    connection::{AnyConnection, Connector},
};

const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// The advisory lock under which gateways on one PostgreSQL take turns to migrate; the number is "dcams" in ASCII.
const LOCK: i64 = 0x64_63_61_6d_73;

/// What to do about the schema when a store is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migrate {
    /// Apply what is missing.
    #[default]
    Auto,
    /// Refuse a schema that is not up to date.
    Check,
    /// Do not look.
    Off,
}

impl FromStr for Migrate {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "check" => Ok(Self::Check),
            "off" => Ok(Self::Off),
            _ => Err("one of auto, check, off is needed".to_owned()),
        }
    }
}

/// Does what `migrate` says, under a lock: of many programs that start at once, one migrates and the rest wait.
pub(crate) fn run(connector: &Connector, migrate: Migrate) -> Result<()> {
    // To connect would be to make it.
    if migrate != Migrate::Auto && connector.is_absent() {
        return Err(behind());
    }
    let connection = &mut connector.connect()?;
    match migrate {
        Migrate::Off => Ok(()),
        Migrate::Check => check(connection),
        Migrate::Auto => match connection {
            AnyConnection::Sqlite(connection) => connection.immediate_transaction(|connection| {
                refuse_newer(connection, &SQLITE)?;
                connection.run_pending_migrations(SQLITE).map_err(schema).map(drop)
            }),
            AnyConnection::Postgres(connection) => connection.transaction(|connection| {
                connection.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))?;
                refuse_newer(connection, &POSTGRES)?;
                connection.run_pending_migrations(POSTGRES).map_err(schema).map(drop)
            }),
        },
    }
}

/// Refuses a schema that is behind or ahead, and changes nothing: diesel makes the table in which it looks, and that is
/// taken back.
fn check(connection: &mut AnyConnection) -> Result<()> {
    let mut found = Ok(());
    let ended = connection.transaction::<(), _, _>(|connection| {
        found = match connection {
            AnyConnection::Sqlite(connection) => look(connection, SQLITE),
            AnyConnection::Postgres(connection) => look(connection, POSTGRES),
        };
        Err(Diesel::RollbackTransaction)
    });
    match ended {
        Ok(()) | Err(Diesel::RollbackTransaction) => found,
        Err(error) => Err(error.into()),
    }
}

fn look<DB: diesel::backend::Backend>(
    connection: &mut impl MigrationHarness<DB>,
    source: EmbeddedMigrations,
) -> Result<()>
where
    EmbeddedMigrations: MigrationSource<DB>,
{
    refuse_newer(connection, &source)?;
    match connection.has_pending_migration(source).map_err(schema)? {
        true => Err(behind()),
        false => Ok(()),
    }
}

fn behind() -> Error {
    Error::Schema("the store's schema is not up to date: run `dcams-gateway migrate`".to_owned())
}

/// A newer program has been here: this one does not know what the tables mean now.
fn refuse_newer<DB: diesel::backend::Backend>(
    connection: &mut impl MigrationHarness<DB>,
    source: &EmbeddedMigrations,
) -> Result<()>
where
    EmbeddedMigrations: MigrationSource<DB>,
{
    let known = MigrationSource::<DB>::migrations(source).map_err(schema)?;
    let applied = connection.applied_migrations().map_err(schema)?;
    match applied
        .iter()
        .find(|version| known.iter().all(|known| known.name().version() != **version))
    {
        Some(version) => Err(Error::Schema(format!(
            "the store was migrated by a newer dcams-gateway ({version}): use that one"
        ))),
        None => Ok(()),
    }
}

fn schema(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Schema(format!("the store's schema cannot be brought up to date: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_have_the_same_migrations() {
        fn names<DB: diesel::backend::Backend>(source: impl MigrationSource<DB>) -> Vec<String> {
            source
                .migrations()
                .unwrap()
                .iter()
                .map(|migration| migration.name().to_string())
                .collect()
        }
        assert_eq!(
            names::<diesel::sqlite::Sqlite>(SQLITE),
            names::<diesel::pg::Pg>(POSTGRES)
        );
    }
}
