"""What the Redis server does for `RedisStorage`, in its Lua: each call is one script, carried out as a whole.

A script is called with the prefix, numbers (MessagePack) and then strings, which it reads one after the other, since
Redis's MessagePack knows no bytes. It answers with one string: the length of the numbers, the numbers, the strings'
lengths among them, and a list of strings, as MessagePack knew them before there were bytes; `wire` puts calls
together and takes answers apart. The scripts of folders are in `folders`.

What lies where, each behind the prefix and a colon (an id is the folder's kind, user and session, each with its length
in front, so that no two folders have one):

    f:<id>     a folder: a hash of its epoch (e), revision (r), head (b), owner (o), its place among those that were
               opened (w, 0: it is not open), and its cells, as <number>:<section>
    m:<id>     the names of a folder
    n:<name>   where a name points: the length of an id, the id, the value
    u:<id>     the session ids of a user's folders of a kind
    o:<kind>   the open folders of that kind, by their places
    idle       all folders, by when to look whether they were forgotten, in ms
    a:<owner>  an owner: its state (s) and when it is late (u), in us
    b:<owner>  notes left for it
    r:<slot>   the last call that was carried out there, and its answer (see WRITING)
    epoch      the last epoch or place that was given
    version    of all this (see `schema`)

A folder that is not open has a time to live, which each write renews; so the server forgets it by itself, in time,
whether any process of ours runs or not. What leads to it stays a little longer: whoever follows it looks whether the
folder is there, and calls that write remove what leads nowhere, a few at a time (`sweep`). Names have no time to live
of their own, since then each write would have to renew all of them.

A script that has written may not fail. So all checks come first, and the first command that writes is one that Redis
refuses when it is full, but for renewals and for changes that delete, which are to be possible then.
"""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec import Struct

from greenroom.services.redis.schema import CHECK, VERSION, start_body

_COMMON: Final = """
local PREFIX = ARGV[1] .. ':'
local given = cmsgpack.unpack(ARGV[2])
local place = 2
local function text()
  place = place + 1
  return ARGV[place]
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function whole(number) return string.format('%.0f', number) end

local function answer(numbers, strings)
  local packed = cmsgpack.pack(numbers)
  local before = struct.pack('>I4', #packed) .. packed
  return strings and before .. cmsgpack.pack(strings) or before -- four times as quick as table.concat
end

-- Lua's stack bounds how many arguments a command may have.
local function in_parts(command, key, arguments, each)
  for first = 1, #arguments, 1000 do
    local last = math.min(first + 999, #arguments)
    local found = redis.call(command, key, unpack(arguments, first, last))
    if each then each(found, first) end
  end
end

local function folder_key(id) return PREFIX .. 'f:' .. id end
local function name_key(name) return PREFIX .. 'n:' .. name end

-- Which states an owner can have: 0 serving, 1 draining, 2 gone.
local function owner_state(owner)
  if owner == '' then return 2 end
  local known = redis.call('HMGET', PREFIX .. 'a:' .. owner, 's', 'u')
  if not known[1] or tonumber(known[2]) <= now then return 2 end
  return tonumber(known[1])
end

-- How a folder stands, behind what is in the two lists; whether it is there.
local function add_head(id, numbers, strings)
  local head = redis.call('HMGET', folder_key(id), 'e', 'r', 'b', 'o', 'w')
  if not head[1] then return false end
  local more = {tonumber(head[1]), tonumber(head[2]), #head[3], #head[4], owner_state(head[4]), tonumber(head[5])}
  for _, number in ipairs(more) do numbers[#numbers + 1] = number end
  strings[#strings + 1] = head[3]
  strings[#strings + 1] = head[4]
  return true
end

-- The id of the folder that a name points to, and the value; nothing when that folder is not there.
local function pointed(name)
  local kept = redis.call('GET', name_key(name))
  if not kept then return nil end
  local id, after = struct.unpack('>I4c0', kept)
  if redis.call('EXISTS', folder_key(id)) == 0 then return nil end
  return id, string.sub(kept, after)
end
"""

_WRITING: Final = """
-- A call may come again, when the connection broke before its answer: what it answered is kept in its slot, under its
-- number. It may also come late, out of the buffers of a server that was stopped, when its caller has long been told
-- that the server did not answer: then it is not carried out.
local slot, call = PREFIX .. 'r:' .. text(), text()
local latest = given[1]
local kept = redis.call('GET', slot)
if kept and string.sub(kept, 1, #call) == call then return string.sub(kept, #call + 1) end
if now > latest then return answer({-1, now}) end
CHECK

local function done(numbers, strings)
  local answered = answer(numbers, strings)
  redis.call('SET', slot, call .. answered, 'PX', 60000)
  return answered
end

-- Epochs are not lower than the time: so they also rise when the server has lost the last of them in a crash.
local function next_epoch()
  local epoch = redis.call('INCR', PREFIX .. 'epoch')
  if epoch < now then
    epoch = now
    redis.call('SET', PREFIX .. 'epoch', whole(epoch))
  end
  return epoch
end

-- A folder's kind, the key of the user's folders of that kind, and the session id.
local function parts(id)
  local starts, found, first = {}, {}, 1
  for number = 1, 3 do
    local colon = string.find(id, ':', first, true)
    local last = colon + tonumber(string.sub(id, first, colon - 1))
    starts[number], found[number], first = first, string.sub(id, colon + 1, last), last + 1
  end
  return found[1], PREFIX .. 'u:' .. string.sub(id, 1, starts[3] - 1), found[3]
end

-- Remove a folder, if it is there, and all that leads to it.
local function forget(id)
  redis.call('UNLINK', folder_key(id))
  for _, name in ipairs(redis.call('SMEMBERS', PREFIX .. 'm:' .. id)) do
    local kept = redis.call('GET', name_key(name))
    if kept and struct.unpack('>I4c0', kept) == id then redis.call('DEL', name_key(name)) end
  end
  local kind, user, session = parts(id)
  redis.call('UNLINK', PREFIX .. 'm:' .. id)
  redis.call('SREM', user, session)
  redis.call('ZREM', PREFIX .. 'o:' .. kind, id)
  redis.call('ZREM', PREFIX .. 'idle', id)
end

-- Remove what leads to folders that the server has forgotten, of so many at most.
local function sweep(most, idle)
  local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'idle', '-inf', whole(now / 1000), 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    local left = redis.call('PTTL', folder_key(id))
    if left == -2 then
      forget(id)
    else
      redis.call('ZADD', PREFIX .. 'idle', whole(now / 1000 + (left < 0 and idle or left)), id)
    end
  end
end
"""

_LOOKUP: Final = """
local id, value = pointed(text())
if not id then return answer({}) end
return answer({#id, #value}, {id, value})
"""

_SESSIONS: Final = """
local user = text()
local numbers, strings = {}, {}
for _, session in ipairs(redis.call('SMEMBERS', PREFIX .. 'u:' .. user)) do
  if redis.call('EXISTS', folder_key(user .. #session .. ':' .. session)) == 1 then
    numbers[#numbers + 1], strings[#strings + 1] = #session, session
  end
end
return answer(numbers, strings)
"""

_ORPHANS: Final = """
local open, limit = PREFIX .. 'o:' .. text(), given[1]
local numbers, strings, first, count, states = {}, {}, 0, 0, {}
repeat
  local some = redis.call('ZRANGE', open, first, first + 499)
  for _, id in ipairs(some) do
    local owner = redis.call('HGET', folder_key(id), 'o')
    if owner and not states[owner] then states[owner] = owner_state(owner) end  -- many have the same one
    if count < limit and states[owner] == 2 then
      numbers[#numbers + 1], strings[#strings + 1] = #id, id
      add_head(id, numbers, strings)
      count = count + 1
    end
  end
  first = first + 500
until #some == 0 or count >= limit
return answer(numbers, strings)
"""

_RENEW: Final = """
local owner, lives, state, idle = text(), given[2], given[3], given[4]
local key, notes = PREFIX .. 'a:' .. owner, PREFIX .. 'b:' .. owner
local known = redis.call('HMGET', key, 's', 'u')
if known[1] and (known[1] == '2' or tonumber(known[2]) <= now) then return answer({1, now}) end

-- What was late must be known as such for as long as it may come back.
local remembered = whole(lives / 1000 + 30 * 86400000)
redis.call('PEXPIRE', key, remembered)
redis.call('HSET', key, 's', whole(state), 'u', whole(now + lives))
redis.call('PEXPIRE', key, remembered)
local strings, numbers = redis.call('LRANGE', notes, 0, -1), {0, now}
redis.call('DEL', notes)
for _, note in ipairs(strings) do numbers[#numbers + 1] = #note end
sweep(256, idle)
return done(numbers, strings)
"""

_NOTE: Final = """
local owner, note, most = text(), text(), given[2]
if owner_state(owner) == 2 then return answer({1, now}) end
local notes = PREFIX .. 'b:' .. owner
redis.call('RPUSH', notes, note)
redis.call('LTRIM', notes, -most, -1)
redis.call('PEXPIREAT', notes, whole(redis.call('HGET', PREFIX .. 'a:' .. owner, 'u') / 1000 + 1))
return done({0, now})
"""

_TRY: Final = """
-- Redis looks at a user's rights when a script comes to a command, and undoes nothing: so all of them are tried before
-- any is needed. The first is one that a full server takes.
local key = PREFIX .. 'try:' .. text()
redis.call('UNLINK', key)
for _, steps in ipairs({
  {{'SET', '', 'PX', 60000}, {'GET'}, {'EXISTS'}, {'DEL'}, {'INCR'}},
  {{'HSET', 'f', 1}, {'HGET', 'f'}, {'HMGET', 'f'}, {'HLEN'}, {'HKEYS'}, {'HDEL', 'f'}},
  {{'SADD', 'm'}, {'SMEMBERS'}, {'SISMEMBER', 'm'}, {'SREM', 'm'}},
  {{'ZADD', 1, 'm'}, {'ZSCORE', 'm'}, {'ZRANGE', 0, 0}, {'ZRANGEBYSCORE', 0, 1}, {'ZREM', 'm'}},
  {{'RPUSH', 'n'}, {'LTRIM', 0, 0}, {'LRANGE', 0, 0}, {'PEXPIRE', 60000}, {'PERSIST'}, {'PTTL'}, {'PEXPIREAT', 1}},
}) do
  for _, step in ipairs(steps) do
    local found = redis.pcall(step[1], key, unpack(step, 2))
    if type(found) == 'table' and found.err then
      redis.call('UNLINK', key)
      return found
    end
  end
  redis.call('UNLINK', key)
end
return answer({})
"""


class Script(Struct, frozen=True):
    """A script, and the name by which a server that knows it calls it. `writes`: it is called with a slot."""

    text: str
    sha: str
    writes: bool


def script(body: str, *, writes: bool = False) -> Script:
    """A script that does what all do, and the body."""
    text = _COMMON + _WRITING.replace("CHECK", CHECK.replace("VERSION", str(VERSION))) * writes + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), writes)


LOOKUP: Final = script(_LOOKUP)
SESSIONS: Final = script(_SESSIONS)
ORPHANS: Final = script(_ORPHANS)
RENEW: Final = script(_RENEW, writes=True)
NOTE: Final = script(_NOTE, writes=True)
TRY: Final = script(_TRY)
START: Final = script(start_body())
