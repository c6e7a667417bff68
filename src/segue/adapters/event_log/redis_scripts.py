"""What the server itself does for the event log on Redis Streams, each script at once and wholly or not at all.

A partition's keys, `KEYS[1]` the stream and `KEYS[2]` the lease, lie in one cluster slot. The group's last-delivered id
is the last `ack`. Its entries-read is kept such that entries-added minus entries-read is the number of entries behind
it, also after some were deleted; XINFO GROUPS shows it as lag, or null while the stream has a deleted entry behind the
last ack. Times are the server's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis import asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError


@dataclass(frozen=True)
class Script:
    """A Lua script, called by its SHA-1."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class Call:
    """The keys and arguments of one call."""

    keys: Sequence[str]
    arguments: Sequence[str | bytes | int]


def run(redis: Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    """The replies to `calls`, one round trip; a server that lost the script is given it once.

    Raises:
        RedisError: the first reply that is an error; every call was made all the same.
    """
    replies: list[Any] = _pipeline(redis, script, calls).execute(raise_on_error=False)
    if missing := _unknown(replies):
        redis.script_load(script.text)
        again = _pipeline(redis, script, [calls[index] for index in missing]).execute(raise_on_error=False)
        _fill(replies, missing, again)
    return _checked(replies)


async def run_async(redis: aioredis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    """As `run`."""
    replies = await _pipeline(redis, script, calls).execute(raise_on_error=False)
    if missing := _unknown(replies):
        await redis.script_load(script.text)
        again = await _pipeline(redis, script, [calls[index] for index in missing]).execute(raise_on_error=False)
        _fill(replies, missing, again)
    return _checked(replies)


def _pipeline(redis: Any, script: Script, calls: Sequence[Call]) -> Any:
    pipe = redis.pipeline(transaction=False)
    for call in calls:
        pipe.evalsha(script.sha, len(call.keys), *call.keys, *call.arguments)
    return pipe


def _unknown(replies: list[Any]) -> list[int]:
    return [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _fill(replies: list[Any], missing: Sequence[int], again: Sequence[Any]) -> None:
    for index, reply in zip(missing, again, strict=True):
        replies[index] = reply


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


_SHARED = """
local function fields(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

local function split(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function behind(a, b)
  local a_ms, a_seq = split(a)
  local b_ms, b_seq = split(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function describe(stream)
  if redis.call('EXISTS', stream) == 0 then
    return {length = 0, ['entries-added'] = 0, ['last-generated-id'] = '0-0'}, {}
  end
  local groups = {}
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    groups[#groups + 1] = fields(flat)
  end
  return fields(redis.call('XINFO', 'STREAM', stream)), groups
end

local function named(groups, name)
  for _, group in ipairs(groups) do
    if group.name == name then return group end
  end
end

-- What every group has acked, and how many entries lie behind that for the group with most of them.
local function acked_by_all(info, groups)
  local id, unacked = nil, 0
  for _, group in ipairs(groups) do
    local read = group['entries-read']
    if not id or behind(id, group['last-delivered-id']) then id = group['last-delivered-id'] end
    unacked = math.max(unacked, read and info['entries-added'] - read or info.length)
  end
  if not id then return '0-0', info.length end
  return id, unacked
end

local function count(stream, first, last)
  local total = 0
  repeat
    local page = redis.call('XRANGE', stream, first, last, 'COUNT', 1000)
    total = total + #page
    if #page > 0 then first = '(' .. page[#page][1] end
  until #page < 1000
  return total
end

local function following(id)
  local ms, seq = split(id)
  return string.format('%.0f-%.0f', ms, seq + 1)
end
"""

APPEND = Script(
    _SHARED
    + """
-- ARGV: most entries not acked, then customer and body of each entry.
-- The last id and whether the stream is new; 'FULL': nothing was appended.
local stream, limit, count = KEYS[1], tonumber(ARGV[1]), (#ARGV - 1) / 2
local length = redis.call('XLEN', stream)
local new = length == 0 and redis.call('EXISTS', stream) == 0
if length + count > limit then
  local info, groups = describe(stream)
  local acked, unacked = acked_by_all(info, groups)
  if unacked + count > limit then return 'FULL' end
  if acked ~= '0-0' then
    redis.call('XTRIM', stream, 'MINID', '~', following(acked), 'LIMIT', count + 10000)
  end
end
local id
for i = 2, #ARGV, 2 do
  id = redis.call('XADD', stream, '*', 'customer', ARGV[i], 'entry', ARGV[i + 1])
end
-- While the server's clock stands still, or is behind, ids only count up: carry to the next millisecond in time.
local ms, seq = split(id)
if seq >= 524288 then redis.call('XSETID', stream, string.format('%.0f-0', ms + 1)) end
return {id, new and 1 or 0}
"""
)

JOIN = Script(
    _SHARED
    + """
-- KEYS[1]: the living consumers, each with the time until which it is taken for alive. ARGV: consumer, lease_ms.
local now = now_ms()
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
)

CLAIM = Script(
    _SHARED
    + """
-- ARGV: consumer, lease_ms, group. The id of the last ack; false: another consumer holds the partition.
local stream, lease = KEYS[1], KEYS[2]
local holder = redis.call('GET', lease)
if holder and holder ~= ARGV[1] then return false end
local info, groups = describe(stream)
local group = named(groups, ARGV[3])
local acked = group and group['last-delivered-id'] or '0-0'
if not group then
  local read = info['entries-added'] - info.length
  redis.call('XGROUP', 'CREATE', stream, ARGV[3], '0', 'MKSTREAM', 'ENTRIESREAD', read)
elseif not group['entries-read'] then
  -- A group made by hand does not say.
  local read = info['entries-added'] - count(stream, '(' .. acked, '+')
  redis.call('XGROUP', 'SETID', stream, ARGV[3], acked, 'ENTRIESREAD', read)
end
redis.call('SET', lease, ARGV[1], 'PX', ARGV[2])
return acked
"""
)

HOLD = Script(
    _SHARED
    + """
-- ARGV: consumer, lease_ms, group, retention_ms, the id to ack or '', the entries read up to it since the last ack.
-- Renews the lease, acks, trims what every group has acked and is older than the retention.
-- 1; false: the lease, or the group, is gone.
local stream, lease, id = KEYS[1], KEYS[2], ARGV[5]
if redis.call('GET', lease) ~= ARGV[1] then return false end
local info, groups = describe(stream)
local group = named(groups, ARGV[3])
if not group or not group['entries-read'] then
  redis.call('DEL', lease)
  return false
end
redis.call('PEXPIRE', lease, ARGV[2])
local last = group['last-delivered-id']
if id ~= '' and behind(id, last) then
  local read
  if not behind(info['last-generated-id'], id) then
    id, read = info['last-generated-id'], info['entries-added']
  elseif behind(info['max-deleted-entry-id'], last) then
    -- FORGET has counted those that were deleted.
    read = group['entries-read'] + count(stream, '(' .. last, id)
  else
    read = group['entries-read'] + ARGV[6]
  end
  redis.call('XGROUP', 'SETID', stream, ARGV[3], id, 'ENTRIESREAD', read)
  group['last-delivered-id'] = id
end
local acked = acked_by_all(info, groups)
if acked ~= '0-0' then
  local oldest, bound = string.format('%.0f-0', now_ms() - ARGV[4]), following(acked)
  redis.call('XTRIM', stream, 'MINID', behind(oldest, bound) and bound or oldest)
end
return 1
"""
)

RELEASE = Script("""
-- ARGV: consumer.
if redis.call('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[2]) end
return 0
""")

FORGET = Script(
    _SHARED
    + """
-- ARGV: ids. How many of them were there; for a group that had yet to read them they count as read.
local stream = KEYS[1]
local _, groups = describe(stream)
local deleted = 0
for _, id in ipairs(ARGV) do
  if redis.call('XDEL', stream, id) == 1 then
    deleted = deleted + 1
    for _, group in ipairs(groups) do
      if group['entries-read'] and behind(id, group['last-delivered-id']) then
        group['entries-read'] = group['entries-read'] + 1
        group.skips = true
      end
    end
  end
end
for _, group in ipairs(groups) do
  if group.skips then
    local read = group['entries-read']
    redis.call('XGROUP', 'SETID', stream, group.name, group['last-delivered-id'], 'ENTRIESREAD', read)
  end
end
return deleted
"""
)
