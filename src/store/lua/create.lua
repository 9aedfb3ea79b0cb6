-- Writes a new document.
-- KEYS[1]: the document.
-- ARGV[1]: how long to keep the document, in ms.
-- ARGV[2], ...: pairs of field and value.
-- Returns the time in ms, or false if the document exists already.
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
