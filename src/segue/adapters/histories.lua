-- Joins what is new of some customers with what is stored, atomically for each call; any order and any number of calls
-- leave the same state.
--
-- KEYS: the customers' histories. What else is kept of a customer lies in the same slot of a cluster, under the hash tag.
-- ARGV[1]: how many records a history keeps.
-- ARGV[1 + i]: records to add to KEYS[i], packed end to end.
-- The last three, if there: erased_at, denied_at, granted_at, each empty for none; they raise the barrier of KEYS[1].
--
-- Returns {i - 1, barrier or nil, links, removed records} of each customer that has a barrier or links.

local RECORD_BYTES = 33
local TIME_AT = 9
local BARRED = 9007199254740991
local ARGUMENTS = 4000
local REGISTERS = { 'erased_at', 'denied_at', 'granted_at' }

local limit = tonumber(ARGV[1])

local function raise(key, first)
  for index, register in ipairs(REGISTERS) do
    local at = tonumber(ARGV[first + index - 1])
    if at and at > (tonumber(redis.call('HGET', key, register)) or -BARRED) then
      redis.call('HSET', key, register, at)
    end
  end
end

local function in_force(key)
  local at = redis.call('HMGET', key, unpack(REGISTERS))
  local erased, denied, granted = tonumber(at[1]), tonumber(at[2]), tonumber(at[3])
  if not denied then
    return erased
  end
  if not granted or denied > granted then
    return BARRED
  end
  return math.max(erased or granted, granted)
end

local function add(key, packed, barrier)
  local arguments = {}
  for at = 1, #packed, RECORD_BYTES do
    local time = struct.unpack('>l', packed, at + TIME_AT - 1)
    if time > barrier then
      arguments[#arguments + 1] = time
      arguments[#arguments + 1] = packed:sub(at, at + RECORD_BYTES - 1)
      if #arguments == ARGUMENTS then
        redis.call('ZADD', key, 'NX', unpack(arguments))
        arguments = {}
      end
    end
  end
  if #arguments > 0 then
    redis.call('ZADD', key, 'NX', unpack(arguments))
  end
end

local found = {}
for index, key in ipairs(KEYS) do
  local beside = '{' .. key .. '}'
  local raises = index == 1 and #ARGV > #KEYS + 1
  local barrier = nil
  if raises or redis.call('EXISTS', beside .. ':barrier', beside .. ':links') > 0 then
    local removed = {}
    if raises then
      raise(beside .. ':barrier', #KEYS + 2)
    end
    barrier = in_force(beside .. ':barrier')
    if raises and barrier then
      removed = redis.call('ZRANGEBYSCORE', key, '-inf', barrier)
      redis.call('ZREMRANGEBYSCORE', key, '-inf', barrier)
    end
    found[#found + 1] = { index - 1, barrier or false, redis.call('SMEMBERS', beside .. ':links'), removed }
  end
  if ARGV[index + 1] ~= '' then
    add(key, ARGV[index + 1], barrier or -math.huge)
    redis.call('ZREMRANGEBYRANK', key, 0, -(limit + 1))
  end
end
return found
