-- SQLite compresses nothing: both stores have the same migrations, and this one is for PostgreSQL.
SELECT 1;
