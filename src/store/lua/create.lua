-- Writes a new document. KEYS[1]: its key. ARGV: keep in ms, then field and value in turn.
-- Returns the time in ms, or false if there is such a document already.
local key = KEYS[1]
if redis.call('EXISTS', key) == 1 then
  return false
end
for i = 2, #ARGV, 2 do
  redis.call('HSET', key, ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', key, ARGV[1])
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)
