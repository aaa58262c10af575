"""Lua scripts of documents and keys. KEYS[1] is how all names begin: their one hash tag decides the node.

Names of index entries depend on what is stored, so scripts put them together; all are in the slot of KEYS[1].
"""

from services.apimgmt.store.valkey.client import Script

MAX_FEED = 10_000
"""Changes that the feed remembers. Who asks for older ones is told to forget everything."""

TRANSACTION_MS = 600_000
"""How long a transaction that was carried out is known: longer than its retries."""

_COMMIT = f"""
local P = KEYS[1]
local done = redis.call('GET', P .. 'tx:' .. ARGV[1])
if done then return {{1, tonumber(done)}} end

-- Number the transaction, tell the feed of `items`, and append audit entries: organization, entry from ARGV[at] on.
local function commit(items, at, audits)
  local revision = redis.call('INCR', P .. 'revision')
  for _, item in ipairs(items) do redis.call('ZADD', P .. 'feed', revision, revision .. ':' .. item) end
  local over = redis.call('ZCARD', P .. 'feed') - {MAX_FEED}
  if over > 0 then
    local cut = redis.call('ZRANGE', P .. 'feed', over - 1, over - 1, 'WITHSCORES')[2]
    redis.call('ZREMRANGEBYSCORE', P .. 'feed', '-inf', cut)
    redis.call('SET', P .. 'feed-floor', cut)
  end
  for i = 0, audits - 1 do
    local organization, entry = ARGV[at + 2 * i], ARGV[at + 2 * i + 1]
    local id = redis.call('INCR', P .. 'audit-sequence') .. '-0'
    redis.call('XADD', P .. 'audit', id, 'e', entry)
    redis.call('XADD', P .. 'audit:' .. organization, id, 'e', entry)
  end
  redis.call('SET', P .. 'tx:' .. ARGV[1], revision, 'PX', {TRANSACTION_MS})
  return {{1, revision}}
end
"""

CHANGE = Script.of(
    _COMMIT
    + """
-- ARGV: transaction, number of changes, number of audit entries; per change: kind, member of the kind's index, expected
-- revision (or empty), 'put' or 'delete', value without its revision; then the audit entries.
-- Returns {1, revision}, or {0, index of the change in conflict, its revision}.
local n = tonumber(ARGV[2])
for i = 0, n - 1 do
  local a = 4 + 5 * i
  if ARGV[a + 2] ~= '' then
    local stored = redis.call('HGET', P .. 'docs', ARGV[a] .. '/' .. ARGV[a + 1])
    local revision = stored and string.match(stored, '^%d+') or '0'
    if revision ~= ARGV[a + 2] then return {0, i, tonumber(revision)} end
  end
end
local revision = string.format('%.0f', tonumber(redis.call('GET', P .. 'revision') or 0) + 1)
for i = 0, n - 1 do
  local a = 4 + 5 * i
  local field = ARGV[a] .. '/' .. ARGV[a + 1]
  if ARGV[a + 3] == 'put' then
    redis.call('HSET', P .. 'docs', field, revision .. ARGV[a + 4])
    redis.call('ZADD', P .. 'docs:' .. ARGV[a], 0, ARGV[a + 1])
  else
    redis.call('HDEL', P .. 'docs', field)
    redis.call('ZREM', P .. 'docs:' .. ARGV[a], ARGV[a + 1])
  end
end
return commit(n > 0 and {''} or {}, 4 + 5 * n, tonumber(ARGV[3]))
"""
)

PUT_KEYS = Script.of(
    _COMMIT
    + """
-- ARGV: transaction, number of keys, number of audit entries, '1' if all must be new; per key: id, number of indexes,
-- the indexes, value; then the audit entries. The value begins with its indexes and a line end.
-- A key's digest never changes, and a time from which it is revoked only comes nearer, whatever the caller had read.
-- Returns {1, revision}, or {0, index of the key that is taken}.
local n, at, items = tonumber(ARGV[2]), 5, {}
local places = {}
for i = 0, n - 1 do
  places[i] = at
  local a, old = at, redis.call('HGET', P .. 'keys', ARGV[at])
  at = a + 3 + tonumber(ARGV[a + 1])
  if old then
    if ARGV[4] == '1' then return {0, i} end
    local indexes, body = string.match(ARGV[at - 1], '^([^\\n]*\\n)(.*)$')
    local was, is = cjson.decode(string.match(old, '\\n(.*)$')), cjson.decode(body)
    if was.digest ~= is.digest then return {0, i} end
    local kept = was.revoked
    if kept and kept ~= cjson.null and (is.revoked == cjson.null or is.revoked > kept) then
      is.revoked = kept
      ARGV[at - 1] = indexes .. cjson.encode(is)
    end
  end
end
for i = 0, n - 1 do
  local a = places[i]
  local id, count = ARGV[a], tonumber(ARGV[a + 1])
  local old = redis.call('HGET', P .. 'keys', id)
  if old then
    for index in string.gmatch(string.match(old, '^[^\\n]*'), '[^\\t]+') do redis.call('ZREM', P .. index, id) end
  end
  for j = 1, count do redis.call('ZADD', P .. ARGV[a + 1 + j], 0, id) end
  redis.call('HSET', P .. 'keys', id, ARGV[a + 2 + count])
  items[#items + 1] = id
end
return commit(items, at, tonumber(ARGV[3]))
"""
)

FEED = Script.of(
    """
-- ARGV: revision. Returns {revision}, {revision, 0} for too much, {revision, 1, entries ...}.
local P, since = KEYS[1], tonumber(ARGV[1])
local revision = tonumber(redis.call('GET', P .. 'revision') or 0)
if since == revision then return {revision} end
if since > revision or since < tonumber(redis.call('GET', P .. 'feed-floor') or 0) then return {revision, 0} end
return {revision, 1, redis.call('ZRANGEBYSCORE', P .. 'feed', '(' .. ARGV[1], '+inf')}
"""
)

SNAPSHOT = Script.of(
    "return {tonumber(redis.call('GET', KEYS[1] .. 'revision') or 0), redis.call('HGETALL', KEYS[1] .. 'docs')}"
)

PAGE = Script.of(
    """
-- ARGV: kind, first, last (as ZRANGEBYLEX has them), limit. Returns members and values in turn.
local P, found = KEYS[1], {}
local members = redis.call('ZRANGEBYLEX', P .. 'docs:' .. ARGV[1], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
for _, member in ipairs(members) do
  found[#found + 1] = ARGV[1] .. '/' .. member
  found[#found + 1] = redis.call('HGET', P .. 'docs', ARGV[1] .. '/' .. member)
end
return found
"""
)

LIST_KEYS = Script.of(
    """
-- ARGV: index, after, limit. Returns values and times of last use in turn, in the order of ids.
local P, found = KEYS[1], {}
local first = ARGV[2] == '' and '-' or '(' .. ARGV[2]
for _, id in ipairs(redis.call('ZRANGEBYLEX', P .. ARGV[1], first, '+', 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = redis.call('HGET', P .. 'keys', id)
  found[#found + 1] = redis.call('HGET', P .. 'used', id)
end
return found
"""
)

GET_KEY = Script.of(
    "return {redis.call('HGET', KEYS[1] .. 'keys', ARGV[1]), redis.call('HGET', KEYS[1] .. 'used', ARGV[1])}"
)

TOUCH = Script.of(
    """
-- ARGV: id, time in turn. Later times win; keys that are not there are passed over.
local P = KEYS[1]
for i = 1, #ARGV, 2 do
  local old = tonumber(redis.call('HGET', P .. 'used', ARGV[i]) or 0)
  if old < tonumber(ARGV[i + 1]) and redis.call('HEXISTS', P .. 'keys', ARGV[i]) == 1 then
    redis.call('HSET', P .. 'used', ARGV[i], ARGV[i + 1])
  end
end
return 1
"""
)

PUT_NOTE = Script.of(
    """
-- ARGV: name, value, expected version, transaction. Returns the new version, or -1 if another one is stored.
-- A repeated call finds what it wrote.
local P, expected = KEYS[1], tonumber(ARGV[3])
local stored = redis.call('HGET', P .. 'notes', ARGV[1])
local version = stored and tonumber(string.match(stored, '^%d+')) or 0
local value = string.format('%.0f', expected + 1) .. '\\n' .. ARGV[4] .. '\\n' .. ARGV[2]
if stored == value then return version end
if version ~= expected then return -1 end
redis.call('HSET', P .. 'notes', ARGV[1], value)
return expected + 1
"""
)
