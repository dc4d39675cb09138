%% Runs the scenarios of a file of terms on OTP's own supervisor and prints what happens, one line each.
-module(harness).
-behaviour(supervisor).
-export([main/1, init/1, start/2, start_group/3]).

main([File]) ->
    logger:remove_handler(default),
    process_flag(trap_exit, true),
    {ok, Scenarios} = file:consult(File),
    lists:foreach(fun run/1, Scenarios),
    halt(0).

run({Name, Before, Flags, Kids, Steps}) ->
    Scribe = spawn(fun() -> scribe([], #{}) end),
    register(scribe, Scribe),
    ets:new(openings, [named_table, public]),
    lists:foreach(fun step/1, Before),
    case supervisor:start_link({local, root}, ?MODULE, {Flags, Kids}) of
        {ok, Root} ->
            begin_dynamic(Flags, Kids),
            lists:foreach(fun(Step) -> step(Step), settle() end, Steps),
            finish(Root);
        {error, _} ->
            receive {'EXIT', _, _} -> ok after 0 -> ok end,
            note("not started")
    end,
    settle(),
    scribe ! {stop, self()},
    Lines = receive {lines, Found} -> Found end,
    catch unregister(scribe),
    ets:delete(openings),
    io:format("== ~s~n", [Name]),
    [io:format("~s~n", [Line]) || Line <- Lines].

finish(Root) ->
    case is_process_alive(Root) of
        true -> note("stop"), exit(Root, shutdown);
        false -> ok
    end,
    receive {'EXIT', Root, _} -> note("ended") end.

settle() -> timer:sleep(20).

%% Keeps the lines in the order in which they come, and watches the children.
scribe(Lines, Names) ->
    receive
        {note, Line} -> scribe([Line | Lines], Names);
        {watch, Name, Pid, From} ->
            Ref = monitor(process, Pid),
            From ! {watched, Pid},
            scribe([["up ", Name] | Lines], Names#{Ref => Name});
        {'DOWN', Ref, process, _, Reason} ->
            #{Ref := Name} = Names,
            scribe([["down ", Name, " ", why(Reason)] | Lines], Names);
        {stop, From} -> From ! {lines, lists:reverse(Lines)}
    end.

why(crash) -> "crash";
why(normal) -> "normal";
why(shutdown) -> "shutdown";
why(killed) -> "killed";
why(Other) -> io_lib:format("~p", [Other]).

note(Line) -> scribe ! {note, Line}.

init({Flags, Kids}) ->
    persistent_term:put({group, self()}, {Flags, Kids}),
    {ok, group(Flags, Kids)};
init(changed) ->
    {Flags, Kids} = persistent_term:get(changed),
    {ok, group(Flags, Kids)}.

group({{dynamic, Restart}, Intensity, Period, _}, _) ->
    {#{strategy => simple_one_for_one, intensity => Intensity, period => Period},
     [#{id => any, start => {?MODULE, start, []}, restart => Restart, shutdown => 500}]};
group({Strategy, Intensity, Period, Auto}, Kids) ->
    {#{strategy => Strategy, intensity => Intensity, period => Period, auto_shutdown => Auto},
     [spec(Kid) || Kid <- Kids]}.

spec({Id, Restart, Significant, Manner, worker}) ->
    Shutdown = case Manner of brutal -> brutal_kill; _ -> 6 end,
    #{id => Id, start => {?MODULE, start, [Id, Manner]}, restart => Restart, significant => Significant,
      shutdown => Shutdown};
spec({Id, Restart, Significant, _, {group, Flags, Kids}}) ->
    #{id => Id, start => {?MODULE, start_group, [Id, Flags, Kids]}, restart => Restart,
      significant => Significant, type => supervisor, shutdown => infinity}.

begin_dynamic({{dynamic, _}, _, _, _}, Kids) ->
    [{ok, _} = supervisor:start_child(root, [Id, Manner]) || {Id, _, _, Manner, worker} <- Kids];
begin_dynamic(_, _) -> ok.

start(Id, Manner) ->
    Name = atom_to_list(Id),
    case opening(Id) of
        fail -> note(["nostart ", Name]), {error, nope};
        throw -> note(["nostart ", Name]), exit(nope);
        ignore -> note(["ignore ", Name]), ignore;
        run ->
            Pid = spawn_link(fun() -> child(Manner) end),
            catch unregister(Id),
            register(Id, Pid),
            scribe ! {watch, Name, Pid, self()},
            receive {watched, Pid} -> ok end,
            Pid ! go,
            {ok, Pid}
    end.

start_group(Id, Flags, Kids) ->
    case supervisor:start_link({local, Id}, ?MODULE, {Flags, Kids}) of
        {ok, Pid} -> {ok, Pid};
        {error, _} = Error -> Error
    end.

opening(Id) ->
    case ets:lookup(openings, Id) of
        [{Id, How, N}] when N > 1 -> ets:insert(openings, {Id, How, N - 1}), How;
        [{Id, How, _}] -> ets:delete(openings, Id), How;
        [] -> run
    end.

child(Manner) ->
    process_flag(trap_exit, true),
    receive go -> ok end,
    child_loop(Manner).

child_loop(Manner) ->
    receive
        {'end', Reason} -> exit(Reason);
        {'EXIT', _, _} when Manner =:= deaf -> child_loop(Manner);
        {'EXIT', _, Reason} -> exit(Reason)
    end.

step({fail, Id, N}) -> ets:insert(openings, {Id, fail, N});
step({ignore, Id, N}) -> ets:insert(openings, {Id, ignore, N});
step({throw, Id, N}) -> ets:insert(openings, {Id, throw, N});
step({crash, [Id]}) -> Id ! {'end', crash};
step({crash, Ids}) ->
    %% The supervisor looks at none of the ends before all of them have come.
    Root = whereis(root),
    true = erlang:suspend_process(Root),
    [begin Id ! {'end', crash}, timer:sleep(5) end || Id <- Ids],
    true = erlang:resume_process(Root);
step({finish, [Id]}) -> Id ! {'end', normal};
step({kill, [Id]}) -> exit(whereis(Id), kill);
step({pass, Seconds}) -> timer:sleep(Seconds * 1000);
step({start, Kid}) ->
    {Id, _, _, _, _} = Kid,
    answer("start", Id, supervisor:start_child(root, spec(Kid)));
step({terminate, Id}) ->
    {Flags, _} = persistent_term:get({group, whereis(root)}),
    Target = case element(1, Flags) of
                 {dynamic, _} -> whereis(Id);
                 _ -> Id
             end,
    answer("terminate", Id, supervisor:terminate_child(root, Target));
step({restart, Id}) -> answer("restart", Id, supervisor:restart_child(root, Id));
step({delete, Id}) -> answer("delete", Id, supervisor:delete_child(root, Id));
step(which) ->
    Kids = lists:reverse(supervisor:which_children(root)),
    note(["which" | [[" ", atom_to_list(Id), state(Pid)] || {Id, Pid, _, _} <- Kids]]);
step(count) ->
    Counts = supervisor:count_children(root),
    Get = fun(Key) -> integer_to_list(proplists:get_value(Key, Counts)) end,
    note(["count ", Get(specs), " ", Get(active), " ", Get(supervisors), " ", Get(workers)]);
step({change, Flags, Kids}) ->
    persistent_term:put(changed, {Flags, Kids}),
    sys:suspend(root),
    %% OTP asks the same callback again; only its argument is another one here.
    sys:replace_state(root, fun(State) -> setelement(tuple_size(State), State, changed) end),
    Answer = sys:change_code(root, ?MODULE, undefined, []),
    sys:resume(root),
    note(["change ", case Answer of ok -> "ok"; _ -> "refused" end]).

state(Pid) when is_pid(Pid) -> ":up";
state(undefined) -> ":down";
state(restarting) -> ":restarting".

answer(Call, Id, Answer) ->
    note([Call, " ", atom_to_list(Id), " ", outcome(Answer)]).

outcome(ok) -> "ok";
outcome({ok, _}) -> "ok";
outcome({ok, _, _}) -> "ok";
outcome({error, {already_started, _}}) -> "already_started";
outcome({error, Atom}) when is_atom(Atom), Atom =/= nope -> atom_to_list(Atom);
outcome({error, _}) -> "error".
