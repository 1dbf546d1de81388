-- wrk: chat requests. `wrk -s post.lua URL -- same` repeats one request, `-- new` makes each one different.
local thread = 0
function setup(t)
  t:set("id", thread)
  thread = thread + 1
end

local template = '{"model":"up","messages":[{"role":"system","content":"You are the support desk of a small shop. ' ..
  'Answer in one or two sentences."},{"role":"user","content":"%s"}],"max_tokens":64,"temperature":0}'
local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer bench-secret",
  ["x-portkey-provider"] = "openai", ["x-portkey-custom-host"] = "http://127.0.0.1:9101/v1" }
local count = 0
local fresh = false
local run

-- A run repeats no request of an earlier one: what it measures would be the cache.
function init(args)
  fresh = args[1] == "new"
  local random = io.open("/dev/urandom", "rb")
  run = string.format("%02x%02x%02x%02x%02x", string.byte(random:read(5), 1, 5))
  random:close()
end

function request()
  count = count + 1
  local text = fresh and string.format("Where is order %s-%d-%d?", run, id, count) or "Where is my order?"
  return wrk.format("POST", nil, headers, string.format(template, text))
end

function response(status)
  if status ~= 200 then
    bad = (bad or 0) + 1
  end
end

function done(summary, latency)
  io.write(string.format("FIGURES %.0f %.3f %.3f %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
