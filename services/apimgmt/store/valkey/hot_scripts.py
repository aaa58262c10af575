"""Lua scripts of the hot path (Lua 5.1 as servers have it): atomic, and run twice they have the effect of once.

Numbers are doubles: exact up to 2^53, which amounts and microseconds since 1970 stay below. Time is the caller's, and
keys expire by spans, not by dates: a server's clock decides nothing but when memory is freed.
"""

from services.apimgmt.store.valkey.client import Script

_ROLLING = """
-- A rolling window: what counts in slots later than the oldest of the window. Slots ahead of `slot` count, too: another
-- process's clock may be ahead, and no window may be exceeded by whoever comes late.
local function rolling(key, slots, slot)
  local sum, stale, all = 0, {}, redis.call('HGETALL', key)
  local keep = slot - slots - math.ceil(slots / 8)
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at > slot - slots and at < slot + slots then
      sum = sum + tonumber(all[i + 1])
    elseif at <= keep or at >= slot + slots then
      stale[#stale + 1] = all[i]
    end
  end
  return sum, stale
end
"""

TOTALS = Script.of(
    _ROLLING
    + """
-- KEYS: counters. ARGV: slots, slot of each.
local totals = {}
for i = 1, #KEYS do
  local slots = tonumber(ARGV[2 * i - 1])
  if slots == 1 then
    totals[i] = tonumber(redis.call('GET', KEYS[i]) or 0)
  else
    totals[i] = rolling(KEYS[i], slots, tonumber(ARGV[2 * i]))
  end
end
return totals
"""
)

RESERVE = Script.of(
    _ROLLING
    + """
-- KEYS: held, mark, counters of charges, counters of paces.
-- ARGV: id, reservation, charges, now (us), margin (ms); per charge: slots, slot, ttl (ms, 0 for ever), amount,
-- ceiling, enforced; per pace: interval (us), burst (us), amount, enforced.
-- Returns granted (-1: the id was used before), totals, waits (us), refused. A repeated call finds what it held.
local id, n, now = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call('HGET', KEYS[1], id)
local again = stored == ARGV[2]
if (stored and not again) or redis.call('EXISTS', KEYS[2]) == 1 then return {-1, {}, {}, {}} end
local totals, waits, refused, raw, stale, pending, arrivals = {}, {}, {}, {}, {}, {}, {}
for i = 1, n do
  local a, key = 6 * i - 1, KEYS[2 + i]
  local slots, amount = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 4])
  local total
  if slots == 1 then
    raw[i] = redis.call('GET', key)
    total = tonumber(raw[i] or 0)
  else
    total, stale[i] = rolling(key, slots, tonumber(ARGV[a + 2]))
  end
  totals[i], pending[key] = total, (pending[key] or 0) + amount
end
for i = 1, n do
  local a = 6 * i - 1
  local amount = tonumber(ARGV[a + 4])
  if not again then
    totals[i] = totals[i] + pending[KEYS[2 + i]] - amount -- others of this reservation in the same window
    if ARGV[a + 6] == '1' and totals[i] + amount > tonumber(ARGV[a + 5]) then refused[#refused + 1] = i - 1 end
  end
end
for i = 1, #KEYS - 2 - n do
  local a = 5 + 6 * n + 4 * (i - 1)
  local key, tat = KEYS[2 + n + i], now
  if pending[key] then
    tat = pending[key]
  else
    local stored = redis.call('GET', key)
    if stored and tonumber(stored) > now then tat = tonumber(stored) end
  end
  local arrival = tat + tonumber(ARGV[a + 3]) * tonumber(ARGV[a + 1])
  local over = math.ceil(arrival - now - tonumber(ARGV[a + 2]))
  waits[i] = (over > 0 and not again) and over or 0
  if over <= 0 then
    arrivals[i] = arrival
    pending[key] = arrival
  elseif not again and ARGV[a + 4] == '1' then
    refused[#refused + 1] = n + i - 1
  end
end
if again then return {1, totals, waits, refused} end
if #refused > 0 then return {0, totals, waits, refused} end
local written = {}
for i = 1, n do
  local a, key = 6 * i - 1, KEYS[2 + i]
  local ttl, amount = tonumber(ARGV[a + 3]), ARGV[a + 4]
  local value = tonumber(amount)
  totals[i] = totals[i] + value
  if value ~= 0 then
    if not stale[i] then
      if raw[i] or written[key] then
        redis.call('INCRBY', key, amount)
      elseif ttl > 0 then
        redis.call('SET', key, amount, 'PX', ttl)
      else
        redis.call('SET', key, amount)
      end
      written[key] = true
    else
      for _, slot in ipairs(stale[i]) do redis.call('HDEL', key, slot) end
      local first = redis.call('HINCRBY', key, ARGV[a + 2], amount) == value
      if first and redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
    end
  end
end
for i, arrival in pairs(arrivals) do
  local ttl = string.format('%.0f', math.ceil((arrival - now) / 1000) + tonumber(ARGV[5]))
  redis.call('SET', KEYS[2 + n + i], string.format('%.2f', arrival), 'PX', ttl)
end
redis.call('HSET', KEYS[1], id, ARGV[2])
return {1, totals, waits, refused}
"""
)

SETTLE = Script.of(
    """
-- KEYS: held, mark, ledger, sums, hours, counters.
-- ARGV: id, only if held, life of the mark (ms), now (ms), record, dimensions, hour, 8 sums; per charge: slots, slot,
-- ttl (ms; 0 for ever, -1 if it counts no more), amount, used.
-- An empty record takes a reservation back: it cannot be made any more, but its request can still be settled.
-- Returns 1, or 0 if it was settled already.
-- What a reservation held is always released; without one nothing is charged. Without charges, what the reservation
-- itself names is released: whoever settles may not know that it was made.
local id, record = ARGV[1], ARGV[5]
local held, mark = redis.call('HGET', KEYS[1], id), redis.call('GET', KEYS[2])
if mark == 's' or (mark and record == '') or (ARGV[2] == '1' and not held) then return 0 end
if record ~= '' then
  -- The first write, and the one that can fail: nothing is half done.
  local added = redis.pcall('XADD', KEYS[3], ARGV[4] .. '-*', 'r', record)
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    -- A later record is there: ids only grow, so this one gets the last one's time.
    local info, last = redis.call('XINFO', 'STREAM', KEYS[3]), ARGV[4]
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then last = string.match(info[i + 1], '^%d+') end
    end
    redis.call('XADD', KEYS[3], last .. '-*', 'r', record)
  end
end
redis.call('SET', KEYS[2], record == '' and 'b' or 's', 'PX', ARGV[3])
if held then redis.call('HDEL', KEYS[1], id) end
if record ~= '' then
  local old, s = redis.call('HGET', KEYS[4], ARGV[6]), {0, 0, 0, 0, 0, 0, 0, 0}
  if old then
    s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8] = struct.unpack('<dddddddd', old)
  else
    redis.call('ZADD', KEYS[5], ARGV[7], ARGV[7])
  end
  for i = 1, 8 do s[i] = s[i] + tonumber(ARGV[7 + i]) end
  redis.call('HSET', KEYS[4], ARGV[6], struct.pack('<dddddddd', s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]))
end
if not held then return 1 end
local function add(key, slots, slot, ttl, delta)
  if delta == 0 then return end
  local change, total = string.format('%.0f', delta)
  if slots == 1 then
    total = redis.call('INCRBY', key, change)
    if total <= 0 or (total == delta and ttl < 0) then redis.call('DEL', key) end
  else
    total = redis.call('HINCRBY', key, slot, change)
    if total <= 0 or (total == delta and ttl < 0) then redis.call('HDEL', key, slot) end
  end
  if total == delta and ttl > 0 and redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
for i = 1, #KEYS - 5 do
  local a = 10 + 5 * i
  local delta = tonumber(ARGV[a + 5]) - tonumber(ARGV[a + 4])
  add(KEYS[5 + i], tonumber(ARGV[a + 1]), ARGV[a + 2], tonumber(ARGV[a + 3]), delta)
end
if #KEYS == 5 then
  local prefix = string.sub(KEYS[1], 1, -#'held' - 1)
  for _, c in ipairs(cjson.decode(string.match(held, '^[^\\n]*'))[2]) do
    local slot = string.format('%.0f', c[2])
    local key = c[3] == 1 and prefix .. 'c:' .. c[1] .. ':' .. slot or prefix .. 'r:' .. c[1]
    add(key, c[3], slot, -1, -c[5])
  end
end
return 1
"""
)

RETIRE = Script.of(
    """
-- KEYS: leases. ARGV: time, owners. Forget owners whose leases ended before, unless they were renewed meanwhile.
for i = 2, #ARGV do
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if ends and tonumber(ends) < tonumber(ARGV[1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
"""
)
