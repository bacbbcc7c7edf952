-- Tokens that act for an account without its password. Revoked ones stay: the history names them.
CREATE TABLE api_tokens (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id  INTEGER NOT NULL REFERENCES accounts (id),
    -- What the token is called: a part of it, and of the actor in the history.
    public_id   TEXT    NOT NULL UNIQUE,
    -- A BLAKE3 hash of the token. It has 256 random bits, which a slow hash would make no harder to guess.
    hash        BLOB    NOT NULL,
    -- The sum of 1 read, 2 write, 4 documents, 8 admin.
    scopes      INTEGER NOT NULL CHECK (scopes BETWEEN 1 AND 15),
    label       TEXT    NOT NULL,
    create_time INTEGER NOT NULL,
    -- From when on it no longer counts; null if it does for ever.
    expire_time INTEGER,
    -- Null while it is not revoked. With it grows the account's credential_version, which every operation compares.
    revoke_time INTEGER,
    -- About when it was last used; null if never.
    use_time    INTEGER
) STRICT;
CREATE INDEX api_tokens_by_account ON api_tokens (account_id);
