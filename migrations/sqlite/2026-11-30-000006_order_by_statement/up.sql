-- SQLite has one transaction at a time: both stores have the same migrations, and this one is for PostgreSQL.
SELECT 1;
