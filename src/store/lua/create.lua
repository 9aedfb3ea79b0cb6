-- Writes a new document.
-- KEYS[1]: the document.
-- ARGV[1]: how long to keep the document, in ms.
-- ARGV[2]: the percentage of maxmemory from which on no document is created.
-- ARGV[3], ...: pairs of field and value.
-- Returns the time in ms, false if the document exists already, or 'full'.
local key = KEYS[1]
local memory = redis.pcall('INFO', 'memory')
-- A server that does not tell is not checked.
if type(memory) == 'string' then
  local function number(name)
    return tonumber(string.match(memory, '\n' .. name .. ':(%d+)')) or 0
  end
  local most = number('maxmemory')
  -- Redis does not count the buffers of replicas and of its file either when it compares.
  local used = number('used_memory') - number('mem_not_counted_for_evict')
  if most > 0 and used * 100 >= most * tonumber(ARGV[2]) then
    return 'full'
  end
end
if redis.call('EXISTS', key) == 1 then
  return false
end
for i = 3, #ARGV, 2 do
  redis.call('HSET', key, ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', key, ARGV[1])
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)
