"""What PostgreSQL does for a storage, in functions of its own: each call is one statement, one trip, one transaction.

The functions bear the version of the tables that they were made for, so that processes of two versions can use one
schema while a deploy rolls: a migration keeps the functions of the version before it, or drops those it cannot keep.

A write takes, before it looks at anything, a lock for each folder and each name that it is about, in the order of the
locks' numbers: writers never wait for each other in a circle. From there on nobody else changes what it decides on;
only the sweep does, and it leaves out folders that a writer holds. What a statement sees is what was committed before
it began (READ COMMITTED), so after the locks each sees all earlier writers' work. In a database whose usual level is a
stricter one the server refuses instead, and the caller sends it again. The functions are in PL/pgSQL, which keeps the
plans of its statements; what reads is STABLE, so that all its statements see the moment at which it was called.

Folders and names are found by the SHA-256 of what they are: indexes take no key over some 2,700 bytes. Ids are bytes,
as they may be no valid Unicode. Epochs come from a sequence, while the folder is locked: two writers of different
folders may commit in another order than they got theirs, but no epoch comes twice, and a folder's rise.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "SCHEMA"
"""Stands for the schema's name."""

# The time by which owners live and folders are idle: the server's, as it goes on within a transaction too. It is a
# function so that a test can own it.
_NOW: Final = """
CREATE FUNCTION SCHEMA.now_1() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$
"""

_OWNER_STATE: Final = """
CREATE FUNCTION SCHEMA.owner_state_1(_owner bytea) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(
        (SELECT state FROM SCHEMA.owners WHERE owner = _owner AND until > SCHEMA.now_1()), 'gone');
END
$$
"""

# A folder that was idle for too long is as if it were not there; the sweep, or who makes it anew, removes what it had.
_LIVES: Final = """
CREATE FUNCTION SCHEMA.lives_1(_opened bigint, _used timestamptz, _idle float8) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT _opened IS NOT NULL OR SCHEMA.now_1() - _used < make_interval(secs => _idle)
$$
"""

# `place`: what is refused, by its place among the folders or names, from 1. `write_id` tells a write that comes a
# second time, as its connection broke, from others: it is not done twice.
_WRITE: Final = """
CREATE FUNCTION SCHEMA.write_1(
    _write_id bytea, _idle float8, _locks bigint[],
    _ids bytea[], _kinds text[], _user_ids bytea[], _session_ids bytea[],
    _epochs bigint[], _revisions bigint[], _takes boolean[], _deletes boolean[], _ends boolean[],
    _bodies bytea[], _owners bytea[], _opens boolean[],
    _drop_of int[], _drop_sections text[], _drop_numbers bigint[],
    _put_of int[], _put_sections text[], _put_numbers bigint[], _put_values bytea[],
    _unname_of int[], _unnames bytea[],
    _name_of int[], _names bytea[], _name_values bytea[],
    OUT verdict text, OUT epochs bigint[], OUT revisions bigint[], OUT place int,
    OUT body bytea, OUT owner bytea, OUT owner_state text, OUT is_open boolean,
    OUT kind text, OUT user_id bytea, OUT session_id bytea, OUT value bytea
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _folder SCHEMA.folders;
    _numbers bigint[];
    _live boolean[];
    _seen int := 0;
    _new boolean;
    _epoch bigint;
    _revision bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(_lock) FROM unnest(_locks) AS _lock;

    FOR _at IN 1 .. cardinality(_ids) LOOP
        SELECT * INTO _folder FROM SCHEMA.folders WHERE id = _ids[_at] FOR UPDATE;
        _numbers[_at] := _folder.number;
        _live[_at] := _folder.number IS NOT NULL AND SCHEMA.lives_1(_folder.opened, _folder.used, _idle);
        epochs[_at] := CASE WHEN _live[_at] THEN _folder.epoch ELSE 0 END;
        revisions[_at] := CASE WHEN _live[_at] THEN _folder.revision ELSE 0 END;
        IF _folder.write_id = _write_id THEN
            _seen := _seen + 1;
        END IF;
        IF place IS NULL AND (epochs[_at], revisions[_at]) <> (_epochs[_at], _revisions[_at]) THEN
            place := _at;
            IF _live[_at] THEN
                body := _folder.body;
                owner := _folder.owner;
                owner_state := SCHEMA.owner_state_1(_folder.owner);
                is_open := _folder.opened IS NOT NULL;
            END IF;
        END IF;
    END LOOP;
    IF _seen > 0 THEN
        verdict := CASE WHEN _seen = (SELECT count(*) FROM unnest(_ends) AS _end WHERE NOT _end)
            THEN 'done' ELSE 'unclear' END;
        RETURN;
    END IF;
    IF place IS NOT NULL THEN
        verdict := 'conflict';
        RETURN;
    END IF;

    IF _names IS NOT NULL THEN
        SELECT _one.* INTO verdict, place, kind, user_id, session_id, value
        FROM SCHEMA.taken_1(
            _idle, _numbers, _deletes, _unname_of, _unnames, _name_of, _names, _name_values) AS _one;
        IF verdict IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;

    FOR _at IN 1 .. cardinality(_ids) LOOP
        _new := _deletes[_at] OR NOT _live[_at];
        IF _new AND _numbers[_at] IS NOT NULL THEN
            DELETE FROM SCHEMA.cells WHERE folder = _numbers[_at];
            DELETE FROM SCHEMA.names WHERE folder = _numbers[_at];
        END IF;
        IF _ends[_at] THEN
            DELETE FROM SCHEMA.folders WHERE number = _numbers[_at];
            epochs[_at] := 0;
            revisions[_at] := 0;
            CONTINUE;
        END IF;
        _epoch := CASE WHEN _new OR _takes[_at] THEN nextval('SCHEMA.counter') ELSE epochs[_at] END;
        _revision := CASE WHEN _new THEN 1 ELSE revisions[_at] + 1 END;
        IF _numbers[_at] IS NULL THEN
            _numbers[_at] := _epoch;
            INSERT INTO SCHEMA.folders
                (number, id, kind, user_id, session_id, epoch, revision, body, owner, opened, used, write_id)
            VALUES (
                _epoch, _ids[_at], _kinds[_at], _user_ids[_at], _session_ids[_at], _epoch, _revision,
                coalesce(_bodies[_at], ''), coalesce(_owners[_at], ''),
                CASE WHEN _opens[_at] THEN nextval('SCHEMA.counter') END, SCHEMA.now_1(), _write_id);
        ELSE
            UPDATE SCHEMA.folders SET
                epoch = _epoch, revision = _revision,
                body = coalesce(_bodies[_at], CASE WHEN _new THEN '' ELSE body END),
                owner = coalesce(_owners[_at], CASE WHEN _new THEN '' ELSE owner END),
                opened = CASE
                    WHEN coalesce(_opens[_at], NOT _new AND opened IS NOT NULL)
                    THEN CASE WHEN _new OR opened IS NULL THEN nextval('SCHEMA.counter') ELSE opened END END,
                used = SCHEMA.now_1(), write_id = _write_id
            WHERE number = _numbers[_at];
        END IF;
        epochs[_at] := _epoch;
        revisions[_at] := _revision;
    END LOOP;

    IF _unnames IS NOT NULL THEN
        DELETE FROM SCHEMA.names USING unnest(_unname_of, _unnames) AS _gone (at, name)
        WHERE id = _gone.name AND folder = _numbers[_gone.at];
    END IF;
    IF _names IS NOT NULL THEN
        INSERT INTO SCHEMA.names (id, folder, value)
        SELECT DISTINCT _name, _numbers[_at], _value
        FROM unnest(_name_of, _names, _name_values) AS _new (_at, _name, _value)
        ON CONFLICT (id) DO UPDATE SET folder = excluded.folder, value = excluded.value;
    END IF;
    IF _drop_of IS NOT NULL THEN
        DELETE FROM SCHEMA.cells USING unnest(_drop_of, _drop_sections, _drop_numbers) AS _gone (at, its, place)
        WHERE folder = _numbers[_gone.at] AND section = _gone.its AND number = _gone.place;
    END IF;
    IF _put_of IS NOT NULL THEN
        INSERT INTO SCHEMA.cells (folder, section, number, value)
        SELECT _numbers[_at], _section, _number, _value
        FROM unnest(_put_of, _put_sections, _put_numbers, _put_values) AS _new (_at, _section, _number, _value)
        ON CONFLICT (folder, section, number) DO UPDATE SET value = excluded.value;
    END IF;
    verdict := 'done';
END
$$
"""

# The first name that cannot be had, by the folder that has it ('taken'), or as the same write gave it away before
# ('doubled', with the place of that). A folder gives up a name in its own change or in an earlier one of the write.
_TAKEN: Final = """
CREATE FUNCTION SCHEMA.taken_1(
    _idle float8, _numbers bigint[], _deletes boolean[],
    _unname_of int[], _unnames bytea[], _name_of int[], _names bytea[], _name_values bytea[]
) RETURNS TABLE (verdict text, place int, kind text, user_id bytea, session_id bytea, value bytea)
LANGUAGE plpgsql STABLE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH wanted AS (
        SELECT at, name, value, place::int
        FROM unnest(_name_of, _names, _name_values) WITH ORDINALITY AS one (at, name, value, place)
    ), given AS (
        SELECT at, name, NULL AS number FROM unnest(_unname_of, _unnames) AS one (at, name)
    ), held AS (
        SELECT wanted.place, folders.kind, folders.user_id, folders.session_id, names.value
        FROM wanted
        JOIN SCHEMA.names ON names.id = wanted.name
        JOIN SCHEMA.folders ON folders.number = names.folder
        WHERE (names.folder IS DISTINCT FROM _numbers[wanted.at] OR names.value <> wanted.value)
            AND SCHEMA.lives_1(folders.opened, folders.used, _idle)
            AND NOT EXISTS (
                SELECT FROM unnest(_numbers, _deletes) WITH ORDINALITY AS one (number, deletes, at)
                WHERE number = names.folder AND one.at <= wanted.at AND (deletes OR EXISTS (
                    SELECT FROM given WHERE given.at = one.at AND given.name = wanted.name)))
    ), doubled AS (
        SELECT wanted.place, min(earlier.place) AS earlier
        FROM wanted JOIN wanted AS earlier ON earlier.name = wanted.name AND earlier.place < wanted.place
        GROUP BY wanted.place, wanted.at, wanted.value
        HAVING bool_or(earlier.at <> wanted.at OR earlier.value <> wanted.value)
    )
    SELECT 'taken', place, kind, user_id, session_id, value FROM held
    UNION ALL
    SELECT 'doubled', place, earlier::text, NULL, NULL, NULL FROM doubled
    ORDER BY 2 LIMIT 1;
END
$$
"""

_READ: Final = """
CREATE FUNCTION SCHEMA.read_1(
    _idle float8, _id bytea, _sections text[], _firsts bigint[], _lasts bigint[]
) RETURNS TABLE (
    epoch bigint, revision bigint, body bytea, owner bytea, owner_state text, is_open boolean,
    spans bigint[], numbers bigint[], cell_values bytea[]
) LANGUAGE plpgsql STABLE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT folders.epoch, folders.revision, folders.body, folders.owner, SCHEMA.owner_state_1(folders.owner),
        folders.opened IS NOT NULL, found.spans, found.numbers, found.cell_values
    FROM SCHEMA.folders, LATERAL (
        SELECT array_agg(one.span) AS spans, array_agg(one.number) AS numbers, array_agg(one.value) AS cell_values
        FROM (
            SELECT span, cells.number, cells.value
            FROM unnest(_sections, _firsts, _lasts) WITH ORDINALITY AS asked (section, first, last, span)
            JOIN SCHEMA.cells ON cells.folder = folders.number AND cells.section = asked.section
                AND cells.number BETWEEN asked.first AND asked.last
            ORDER BY span, cells.number
        ) AS one
    ) AS found
    WHERE folders.id = _id AND SCHEMA.lives_1(folders.opened, folders.used, _idle);
END
$$
"""

_LOOKUP: Final = """
CREATE FUNCTION SCHEMA.lookup_1(_idle float8, _id bytea)
RETURNS TABLE (kind text, user_id bytea, session_id bytea, value bytea) LANGUAGE plpgsql STABLE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT folders.kind, folders.user_id, folders.session_id, names.value
    FROM SCHEMA.names JOIN SCHEMA.folders ON folders.number = names.folder
    WHERE names.id = _id AND SCHEMA.lives_1(folders.opened, folders.used, _idle);
END
$$
"""

_SESSIONS: Final = """
CREATE FUNCTION SCHEMA.sessions_1(_idle float8, _kind text, _user_id bytea) RETURNS bytea[]
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT coalesce(array_agg(session_id ORDER BY session_id), '{}') FROM SCHEMA.folders
        WHERE kind = _kind AND sha256(user_id) = sha256(_user_id)
            AND SCHEMA.lives_1(folders.opened, folders.used, _idle));
END
$$
"""

_ORPHANS: Final = """
CREATE FUNCTION SCHEMA.orphans_1(
    _kind text, _most int,
    OUT user_ids bytea[], OUT session_ids bytea[], OUT epochs bigint[], OUT revisions bigint[],
    OUT bodies bytea[], OUT owners bytea[]
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    SELECT array_agg(user_id), array_agg(session_id), array_agg(epoch), array_agg(revision),
        array_agg(body), array_agg(owner)
    INTO user_ids, session_ids, epochs, revisions, bodies, owners
    FROM (
        SELECT * FROM SCHEMA.folders
        WHERE kind = _kind AND opened IS NOT NULL AND SCHEMA.owner_state_1(owner) = 'gone'
        ORDER BY opened LIMIT _most
    ) AS one;
END
$$
"""

# The owner's row is locked by who renews and by who leaves a note: notes are numbered as they are seen. Notes that were
# given stay until the next renewal. `since`: of a renewal that is sent again, as its answer was lost with the
# connection, the last note that did arrive.
_RENEW: Final = """
CREATE FUNCTION SCHEMA.renew_1(
    _owner bytea, _seconds float8, _state text, _since bigint,
    OUT lives boolean, OUT last bigint, OUT notes bytea[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _known SCHEMA.owners;
    _new bytea;
BEGIN
    INSERT INTO SCHEMA.owners (owner, state, until, given)
    VALUES (_owner, _state, SCHEMA.now_1() + make_interval(secs => _seconds), 0)
    ON CONFLICT DO NOTHING RETURNING owner INTO _new;
    SELECT * INTO _known FROM SCHEMA.owners WHERE owner = _owner FOR UPDATE;
    lives := _new IS NOT NULL OR _known.state <> 'gone' AND _known.until > SCHEMA.now_1();
    IF NOT lives THEN
        RETURN;
    END IF;
    last := coalesce(_since, _known.given);
    DELETE FROM SCHEMA.notes WHERE owner = _owner AND number <= last;
    SELECT coalesce(array_agg(note ORDER BY number), '{}'), coalesce(max(number), last) INTO notes, last
    FROM SCHEMA.notes WHERE owner = _owner;
    UPDATE SCHEMA.owners
    SET state = _state, until = SCHEMA.now_1() + make_interval(secs => _seconds), given = last
    WHERE owner = _owner;
END
$$
"""

_NOTE: Final = """
CREATE FUNCTION SCHEMA.note_1(_owner bytea, _note bytea, _most int) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _known SCHEMA.owners;
BEGIN
    SELECT * INTO _known FROM SCHEMA.owners WHERE owner = _owner FOR UPDATE;
    IF _known.owner IS NULL OR _known.state = 'gone' OR _known.until <= SCHEMA.now_1() THEN
        RETURN false;
    END IF;
    INSERT INTO SCHEMA.notes (owner, number, note) VALUES (_owner, nextval('SCHEMA.counter'), _note);
    DELETE FROM SCHEMA.notes WHERE owner = _owner AND number <= (
        SELECT number FROM SCHEMA.notes WHERE owner = _owner AND number > _known.given
        ORDER BY number DESC OFFSET _most LIMIT 1);
    RETURN true;
END
$$
"""

# Folders that a writer holds are left out, and those it takes nobody waits for: the sweep is in nobody's way.
_SWEEP: Final = """
CREATE FUNCTION SCHEMA.sweep_1(_idle float8, _owners_kept float8, _most int) RETURNS int
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _before timestamptz := SCHEMA.now_1() - make_interval(secs => _idle);
    _numbers bigint[];
BEGIN
    SELECT array_agg(number) INTO _numbers FROM (
        SELECT number FROM SCHEMA.folders WHERE opened IS NULL AND used <= _before
        ORDER BY used LIMIT _most FOR UPDATE SKIP LOCKED
    ) AS _idle_ones;
    DELETE FROM SCHEMA.cells WHERE folder = ANY (_numbers);
    DELETE FROM SCHEMA.names WHERE folder = ANY (_numbers);
    DELETE FROM SCHEMA.folders WHERE number = ANY (_numbers);
    DELETE FROM SCHEMA.notes WHERE owner IN (
        SELECT owner FROM SCHEMA.owners WHERE until <= SCHEMA.now_1() OR state = 'gone');
    DELETE FROM SCHEMA.owners WHERE until <= SCHEMA.now_1() - make_interval(secs => _owners_kept);
    RETURN coalesce(cardinality(_numbers), 0);
END
$$
"""

FUNCTIONS_1: Final = (
    *(_NOW, _OWNER_STATE, _LIVES, _TAKEN, _WRITE, _READ),
    *(_LOOKUP, _SESSIONS, _ORPHANS, _RENEW, _NOTE, _SWEEP),
)
