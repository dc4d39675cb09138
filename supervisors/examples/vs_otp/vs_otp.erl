%% The OTP side of the comparison: one scenario a run, its figure is the only line printed.
%% Called as: erl -noshell -s vs_otp main SCENARIO KIND COUNT (KIND is plain or server).
-module(vs_otp).
-behaviour(supervisor).
-behaviour(gen_server).

-export([main/1, log/2, start_plain/2, plain/2, start_idle/0, start_server/2]).
-export([init/1, handle_cast/2, handle_call/3]).

%% As many reports as the other side keeps.
-define(RING, 10000).
%% More restarts than any scenario makes within the period, so that none ends the supervisor. Same on the other side.
-define(INTENSITY, 1000000).
-define(PERIOD, 1).
%% Restarts measured: bursts of one right after the other, then a pause in which the period passes, because the check
%% of the intensity walks over all restarts of the period; or each after a rest. Same on the other side.
-define(BURSTS, 3).
-define(BURST, 100).
-define(PAUSE_MS, 2100).
-define(RESTED, 300).
-define(REST_MS, 2).

main([Scenario, Kind, Count]) ->
    ok = to_ring(),
    Figure = run(Scenario, Kind, list_to_integer(atom_to_list(Count))),
    io:format("~w~n", [float(Figure)]),
    halt(0).

run(restart, Kind, Siblings) ->
    restarts(Kind, Siblings, ?BURSTS, ?PAUSE_MS, ?BURST, 0);
run(rested, Kind, Siblings) ->
    restarts(Kind, Siblings, 1, 0, ?RESTED, ?REST_MS);
run(storm, Kind, Count) ->
    burst(one_for_one, Kind, Count, Count);
run(group, Kind, Count) ->
    burst(one_for_all, Kind, Count, 1);
run(start_stop, Kind, Count) ->
    Start = now_ns(),
    Sup = dynamic(Kind, Count),
    stop(Sup),
    (now_ns() - Start) / 1.0e9;
run(idle, Kind, Count) ->
    collect(),
    Before = erlang:memory(total),
    Sup = dynamic(Kind, Count),
    collect(),
    Bytes = (erlang:memory(total) - Before) / Count,
    true = is_process_alive(Sup),
    Bytes.

%% Seconds from the crash of Crashing children at once until all Count that have to be restarted run.
burst(Strategy, Kind, Count, Crashing) ->
    Lives = atomics:new(1, []),
    {ok, Sup} = supervisor(Strategy, specs(Kind, Count, {self(), {Lives, 2 * Count}})),
    Pids = [Pid || {_, Pid, _, _} <- supervisor:which_children(Sup)],
    Victims = lists:sublist(Pids, Crashing),
    Start = now_ns(),
    [crash(Pid) || Pid <- Victims],
    receive all_up -> ok end,
    (now_ns() - Start) / 1.0e9.

%% Median microseconds from the first child's crash to its successor's first step.
restarts(Kind, Siblings, Bursts, PauseMs, Burst, RestMs) ->
    {ok, Sup} = supervisor(one_for_one, specs(Kind, Siblings + 1, {self(), none})),
    {Victim, _} = up(),
    {_, Times} = lists:foldl(
        fun(_, {Pid, Times}) ->
            timer:sleep(PauseMs),
            crashes(Burst, RestMs, Pid, Times)
        end, {Victim, []}, lists:seq(1, Bursts)),
    true = is_process_alive(Sup),
    lists:nth(length(Times) div 2, lists:sort(Times)) / 1000.

%% The first child says when it crashes and when its successor runs.
crashes(0, _, Pid, Times) -> {Pid, Times};
crashes(Rounds, RestMs, Pid, Times) ->
    [timer:sleep(RestMs) || RestMs > 0],
    crash(Pid),
    CrashedAt = receive {crashed, At} -> At end,
    {Next, UpAt} = up(),
    crashes(Rounds - 1, RestMs, Next, [UpAt - CrashedAt | Times]).

up() -> receive {up, Pid, At} -> {Pid, At} end.

crash(Pid) -> gen_server:cast(Pid, crash).

supervisor(Strategy, Specs) ->
    Flags = #{strategy => Strategy, intensity => ?INTENSITY, period => ?PERIOD},
    supervisor:start_link(?MODULE, {supervisor, Flags, Specs}).

specs(Kind, Count, Signals) ->
    [#{id => N, start => start(Kind, N, Signals)} || N <- lists:seq(1, Count)].

start(plain, N, Signals) -> {?MODULE, start_plain, [N, Signals]};
start(server, N, Signals) -> {?MODULE, start_server, [N, Signals]}.

dynamic(Kind, Count) ->
    Start = case Kind of
        plain -> {?MODULE, start_idle, []};
        server -> {?MODULE, start_server, [0, none]}
    end,
    {ok, Sup} = supervisor(simple_one_for_one, [#{id => idle, start => Start}]),
    [{ok, _} = supervisor:start_child(Sup, []) || _ <- lists:seq(1, Count)],
    Sup.

stop(Sup) ->
    unlink(Sup),
    Ref = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Ref, process, Sup, _} -> ok end.

collect() -> [erlang:garbage_collect(Pid) || Pid <- processes()], ok.

now_ns() -> erlang:monotonic_time(nanosecond).

%% A process without a behaviour: what a task is on the other side.
start_plain(N, Signals) -> {ok, spawn_link(?MODULE, plain, [N, Signals])}.

plain(N, Signals) ->
    running(N, Signals),
    receive {'$gen_cast', crash} -> crashing(N, Signals), exit(crash) end.

start_idle() -> {ok, spawn_link(fun() -> receive stop -> ok end end)}.

%% A gen_server: what an actor is on the other side.
start_server(N, Signals) -> gen_server:start_link(?MODULE, {server, N, Signals}, []).

init({supervisor, Flags, Specs}) -> {ok, {Flags, Specs}};
init({server, N, Signals}) ->
    running(N, Signals),
    {ok, {N, Signals}}.

handle_cast(crash, {N, Signals} = State) ->
    crashing(N, Signals),
    {stop, crash, State}.

handle_call(_, _, State) -> {reply, ok, State}.

running(1, {Driver, none}) -> Driver ! {up, self(), now_ns()};
running(_, {Driver, {Lives, All}}) ->
    case atomics:add_get(Lives, 1, 1) of
        All -> Driver ! all_up;
        _ -> ok
    end;
running(_, _) -> ok.

crashing(1, {Driver, none}) -> Driver ! {crashed, now_ns()};
crashing(_, _) -> ok.

%% Reports go, formatted to one line each, into a ring in memory: neither side waits for a disk, and none is dropped
%% under load as OTP's own handler would. It logs from the level that OTP logs from by default.
to_ring() ->
    Ring = ets:new(ring, [public]),
    Seq = atomics:new(1, []),
    Formatter = {logger_formatter, #{single_line => true}},
    ok = logger:remove_handler(default),
    logger:add_handler(ring, ?MODULE, #{config => {Ring, Seq}, formatter => Formatter}).

log(Event, #{config := {Ring, Seq}, formatter := {Formatter, Config}}) ->
    Line = unicode:characters_to_binary(Formatter:format(Event, Config)),
    ets:insert(Ring, {atomics:add_get(Seq, 1, 1) rem ?RING, Line}).
