#!lua
-- Gives the right to flush a journal, or lets its holder keep it; answers the number of the tenure, or nothing.
-- No expiry of the server's, which could evict what has one.
-- KEYS: 1 the right.  ARGV: 1 who asks, 2 for how many microseconds
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local held = redis.call('HMGET', KEYS[1], 'holder', 'ends', 'tenure')
local tenure = held[3]
if held[1] ~= ARGV[1] then
  if held[1] and tonumber(held[2]) > now then return false end
  -- Never a number that was used before, also if everything was lost or the clock was put back.
  tenure = string.format('%.0f', math.max(now, tonumber(held[3] or 0) + 1))
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'ends', string.format('%.0f', now + ARGV[2]), 'tenure', tenure)
return tenure
