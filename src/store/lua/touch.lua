-- Writes one field of a document without a new version.
-- KEYS[1]: the document.
-- ARGV[1]: how long to keep the document, in ms.
-- ARGV[2], ARGV[3]: the field and its value.
-- Returns 1 if the field is written, and 0 if there is no such document.
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then
  return 0
end
redis.call('HSET', key, ARGV[2], ARGV[3])
if redis.call('PTTL', key) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', key, ARGV[1])
end
return 1
