#!lua
-- Lets go of entries of a journal, says so to those who follow it, and forgets old outcomes.
-- KEYS: 1 entries, 2 removals, 3 outcomes by idempotency key, 4 their times
-- ARGV: 1 outcomes from before are forgotten, 2 how many at once, 3 how long removals are told in milliseconds, 4.. sequences
for n = 4, #ARGV do redis.call('XDEL', KEYS[1], ARGV[n] .. '-0') end
if #ARGV > 3 then
  local time = redis.call('TIME')
  local oldest = string.format('%.0f', time[1] * 1000 - ARGV[3])
  redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'sequences', table.concat(ARGV, ' ', 4))
end
for _, key in ipairs(redis.call('ZRANGE', KEYS[4], '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local id = string.sub(redis.call('HGET', KEYS[3], key) or '', 33) .. '-0'
  -- One whose entry waits is still needed.
  if id == '-0' or #redis.call('XRANGE', KEYS[1], id, id) == 0 then
    redis.call('HDEL', KEYS[3], key)
    redis.call('ZREM', KEYS[4], key)
  end
end
return 1
