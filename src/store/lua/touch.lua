-- Writes one field without a new version. KEYS[1]: the document. ARGV: keep in ms, field, value. Returns whether it is.
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then
  return 0
end
redis.call('HSET', key, ARGV[2], ARGV[3])
if redis.call('PTTL', key) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', key, ARGV[1])
end
return 1
