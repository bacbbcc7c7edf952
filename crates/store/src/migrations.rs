//! Brings the schema of either database to what this program needs; the SQL is in migrations/ and in the binary.

use std::str::FromStr;

use diesel::{
    Connection, QueryDsl, RunQueryDsl,
    backend::Backend,
    connection::SimpleConnection,
    dsl::sql,
    migration::{MigrationSource, MigrationVersion},
    pg::Pg,
    select,
    sql_types::Bool,
    sqlite::Sqlite,
};
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
            AnyConnection::Sqlite(connection) => {
                connection.immediate_transaction(|connection| apply(connection, SQLITE))
            }
            AnyConnection::Postgres(connection) => connection.transaction(|connection| {
                // A migration may take long, and so may the wait for another gateway's.
                connection.batch_execute(&format!(
                    "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({LOCK})"
                ))?;
                apply(connection, POSTGRES)
            }),
        },
    }
}

diesel::table! {
    /// diesel's own list of what was applied.
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

/// Refuses a schema that is behind or ahead.
fn check(connection: &mut AnyConnection) -> Result<()> {
    let applied = applied(connection)?;
    let known = match connection {
        AnyConnection::Sqlite(_) => versions::<Sqlite>(&SQLITE)?,
        AnyConnection::Postgres(_) => versions::<Pg>(&POSTGRES)?,
    };
    refuse_newer(&known, &applied)?;
    if known.iter().any(|version| !applied.contains(version)) {
        return Err(behind());
    }
    Ok(())
}

fn behind() -> Error {
    Error::Schema("the store's schema is not up to date: run `dcams-gateway migrate`".to_owned())
}

/// The versions of the migrations that were applied. It only reads: diesel's own function makes the list where it is
/// not there, which an empty database would keep, and which takes more right than a gateway needs.
fn applied(connection: &mut AnyConnection) -> Result<Vec<String>> {
    let is_there = select(sql::<Bool>(match connection {
        AnyConnection::Sqlite(_) => "EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '__diesel_schema_migrations')",
        AnyConnection::Postgres(_) => "to_regclass('__diesel_schema_migrations') IS NOT NULL",
    }));
    if is_there.get_result(connection)? {
        Ok(__diesel_schema_migrations::table
            .select(__diesel_schema_migrations::version)
            .load(connection)?)
    } else {
        Ok(Vec::new())
    }
}

/// Applies what is missing.
fn apply<DB: Backend>(connection: &mut impl MigrationHarness<DB>, source: EmbeddedMigrations) -> Result<()>
where
    EmbeddedMigrations: MigrationSource<DB>,
{
    let applied = connection.applied_migrations().map_err(schema)?;
    refuse_newer(&versions::<DB>(&source)?, &texts(&applied))?;
    connection.run_pending_migrations(source).map_err(schema).map(drop)
}

/// The versions of the migrations that this program has.
fn versions<DB: Backend>(source: &impl MigrationSource<DB>) -> Result<Vec<String>> {
    let migrations = source.migrations().map_err(schema)?;
    let versions: Vec<_> = migrations.iter().map(|migration| migration.name().version()).collect();
    Ok(texts(&versions))
}

fn texts(versions: &[MigrationVersion<'_>]) -> Vec<String> {
    versions.iter().map(ToString::to_string).collect()
}

/// A newer program has been here: this one does not know what the tables mean now.
fn refuse_newer(known: &[String], applied: &[String]) -> Result<()> {
    match applied.iter().find(|version| !known.contains(version)) {
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
        fn names<DB: Backend>(source: impl MigrationSource<DB>) -> Vec<String> {
            source
                .migrations()
                .unwrap()
                .iter()
                .map(|migration| migration.name().to_string())
                .collect()
        }
        assert_eq!(names::<Sqlite>(SQLITE), names::<Pg>(POSTGRES));
    }
}
