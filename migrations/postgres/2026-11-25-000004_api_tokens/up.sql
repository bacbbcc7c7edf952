-- Tokens that act for an account without its password. Revoked ones stay: the history names them.
CREATE TABLE api_tokens (
    id          BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  BIGINT   NOT NULL REFERENCES accounts (id),
    -- What the token is called: a part of it, and of the actor in the history.
    public_id   TEXT     COLLATE "C" NOT NULL UNIQUE,
    -- A BLAKE3 hash of the token. It has 256 random bits, which a slow hash would make no harder to guess.
    hash        BYTEA    NOT NULL,
    -- The sum of 1 read, 2 write, 4 documents, 8 admin.
    scopes      SMALLINT NOT NULL CHECK (scopes BETWEEN 1 AND 15),
    label       TEXT     NOT NULL,
    create_time BIGINT   NOT NULL,
    -- From when on it no longer counts; null if it does for ever.
    expire_time BIGINT,
    -- Null while it is not revoked. With it grows the account's credential_version, which every operation compares.
    revoke_time BIGINT,
    -- About when it was last used; null if never.
    use_time    BIGINT
);
CREATE INDEX api_tokens_by_account ON api_tokens (account_id);
