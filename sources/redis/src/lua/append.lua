#!lua
-- Keeps entries of a journal behind all others.
-- KEYS: 1 entries, 2 the last sequence, 3 outcomes by idempotency key, 4 their times, 5 batches that were given up
-- ARGV: 1 number of the batch, then for each entry: body, idempotency key or '', its fingerprint, time
-- Answers for each entry its sequence, '=' and the earlier sequence, or '!' for another fingerprint; nothing for a
-- batch that its sender has given up by now.
local given_up = redis.call('GET', KEYS[5])
if given_up and tonumber(ARGV[1]) <= tonumber(given_up) then return {} end
local last = tonumber(redis.call('GET', KEYS[2]) or 0)
if last == 0 then
  -- Sequences go on rising also if everything was lost: a second has fewer entries than microseconds.
  local time = redis.call('TIME')
  last = time[1] * 1000000 + time[2]
end
local answer = {}
for n = 2, #ARGV, 4 do
  local key, fingerprint = ARGV[n + 1], ARGV[n + 2]
  local known = key ~= '' and redis.call('HGET', KEYS[3], key)
  if not known then
    last = last + 1
    local sequence = string.format('%.0f', last)
    redis.call('XADD', KEYS[1], sequence .. '-0', 'body', ARGV[n])
    if key ~= '' then
      redis.call('HSET', KEYS[3], key, fingerprint .. sequence)
      redis.call('ZADD', KEYS[4], ARGV[n + 3], key)
    end
    answer[#answer + 1] = sequence
  elseif string.sub(known, 1, 32) == fingerprint then
    answer[#answer + 1] = '=' .. string.sub(known, 33)
  else
    answer[#answer + 1] = '!'
  end
end
redis.call('SET', KEYS[2], string.format('%.0f', last))
return answer
