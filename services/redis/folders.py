"""Writing and reading folders on the Redis server: the two long ones of the scripts in `scripts`."""

from __future__ import annotations

from typing import Final

from greenroom.services.redis.scripts import script

WRITE: Final = script(
    """
local idle, changes = given[2], {}
for number, asked in ipairs(given[3]) do
  local change = {
    id = text(), epoch = asked[1], revision = asked[2], take = asked[3] == 1, delete = asked[4] == 1,
    ends = asked[5] == 1, open = asked[6], fields = {}, drop = {}, names = {}, unname = {},
  }
  if asked[7] == 1 then change.head = text() end
  if asked[8] == 1 then change.owner = text() end
  for n = 1, 2 * asked[9] do change.fields[n] = text() end
  for n = 1, asked[10] do change.drop[n] = text() end
  for n = 1, asked[11] do change.names[n] = {text(), text()} end
  for n = 1, asked[12] do change.unname[n] = text() end
  changes[number] = change
end

-- The fences are as expected: answers 1, with how the first one stands that is not.
for number, change in ipairs(changes) do
  local found = redis.call('HMGET', folder_key(change.id), 'e', 'r', 'w')
  change.there = found[1] and true or false
  change.found = {tonumber(found[1] or 0), tonumber(found[2] or 0), tonumber(found[3] or 0)}
  if change.epoch >= 0 and (change.epoch ~= change.found[1] or change.revision ~= change.found[2]) then
    local numbers, strings = {1, now, number}, {}
    add_head(change.id, numbers, strings)
    return answer(numbers, strings)
  end
end

-- The names can be had, one change after the other: answers 2, with where the first one points that cannot.
local moved = {}
for number, change in ipairs(changes) do
  change.gone = {}
  if change.there and change.delete then
    for _, name in ipairs(redis.call('SMEMBERS', PREFIX .. 'm:' .. change.id)) do moved[name] = {} end
  elseif change.there then
    for _, name in ipairs(change.unname) do
      if redis.call('SISMEMBER', PREFIX .. 'm:' .. change.id, name) == 1 then
        moved[name] = {}
        table.insert(change.gone, name)
      end
    end
  end
  for _, wanted in ipairs(change.names) do
    local to = moved[wanted[1]] or {pointed(wanted[1])}
    if not to[1] then
      moved[wanted[1]] = {change.id, wanted[2]}
    elseif to[1] ~= change.id or to[2] ~= wanted[2] then
      return answer({2, now, #wanted[1], #to[1], #to[2]}, {wanted[1], to[1], to[2]})
    end
  end
end

-- Nothing fails from here on.
local function name_it(change)
  local names = PREFIX .. 'm:' .. change.id
  for _, name in ipairs(change.gone) do
    redis.call('DEL', name_key(name))
    redis.call('SREM', names, name)
  end
  for _, wanted in ipairs(change.names) do
    redis.call('SET', name_key(wanted[1]), struct.pack('>I4', #change.id) .. change.id .. wanted[2])
    redis.call('SADD', names, wanted[1])
  end
end

local function lead_to(change, kind, user, session)
  if not change.there then
    redis.call('SADD', user, session)
    redis.call('ZADD', PREFIX .. 'idle', whole(now / 1000 + idle), change.id)
  end
  if change.opened > 0 then
    redis.call('ZADD', PREFIX .. 'o:' .. kind, whole(change.opened), change.id)
  elseif change.found[3] > 0 then
    redis.call('ZREM', PREFIX .. 'o:' .. kind, change.id)
  end
end

local function apply(change)
  local key, fields, found = folder_key(change.id), change.fields, change.found
  if change.delete or (not change.there and redis.call('ZSCORE', PREFIX .. 'idle', change.id)) then
    forget(change.id)
    change.there, change.gone, found = false, {}, {0, 0, 0}
    change.found = found
  end
  if change.ends then return 0, 0 end
  local epoch, revision = found[1], found[2] + 1
  if not change.there or change.take then epoch = next_epoch() end
  change.opened = found[3]
  if change.open == 0 then change.opened = 0 end
  if change.open == 1 and found[3] == 0 then change.opened = next_epoch() end
  local function set(field, value) fields[#fields + 1], fields[#fields + 2] = field, value end
  set('e', whole(epoch))
  set('r', whole(revision))
  if change.head or not change.there then set('b', change.head or '') end
  if change.owner or not change.there then set('o', change.owner or '') end
  if change.opened ~= found[3] or not change.there then set('w', whole(change.opened)) end
  in_parts('HSET', key, fields)
  in_parts('HDEL', key, change.drop)
  if change.opened == 0 then
    redis.call('PEXPIRE', key, whole(idle))
  elseif found[3] == 0 then
    redis.call('PERSIST', key)
  end
  if not change.there or change.opened ~= found[3] then lead_to(change, parts(change.id)) end
  name_it(change)
  return epoch, revision
end

local numbers = {0, now}
for _, change in ipairs(changes) do
  numbers[#numbers + 1], numbers[#numbers + 2] = apply(change)
end
sweep(4, idle)
return done(numbers)
""",
    writes=True,
)

READ: Final = script("""
local id = text()
local key, numbers, strings = folder_key(id), {}, {}
if not add_head(id, numbers, strings) then return answer(numbers) end

-- All numbers by section: looked at once, when a span is wider than the folder has values.
local known
local function numbers_of(section)
  if not known then
    known = {}
    for _, field in ipairs(redis.call('HKEYS', key)) do
      local colon = string.find(field, ':', 1, true)
      if colon then
        local within = string.sub(field, colon + 1)
        if not known[within] then known[within] = {} end
        table.insert(known[within], tonumber(string.sub(field, 1, colon - 1)))
      end
    end
  end
  return known[section] or {}
end

local size = redis.call('HLEN', key)
for _, span in ipairs(given) do
  local section, wanted, fields = text(), {}, {}
  if span[2] - span[1] < size then
    for number = span[1], span[2] do wanted[#wanted + 1] = number end
  else
    for _, number in ipairs(numbers_of(section)) do
      if span[1] <= number and number <= span[2] then wanted[#wanted + 1] = number end
    end
  end
  for place, number in ipairs(wanted) do fields[place] = whole(number) .. ':' .. section end
  local count = #numbers + 1
  numbers[count] = 0
  in_parts('HMGET', key, fields, function(found, first)
    for place, value in ipairs(found) do
      if value then
        numbers[count] = numbers[count] + 1
        numbers[#numbers + 1], numbers[#numbers + 2] = wanted[first + place - 1], #value
        strings[#strings + 1] = value
      end
    end
  end)
end
return answer(numbers, strings)
""")
