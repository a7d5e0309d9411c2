-- The year from the CSV files alone: tables flights, weather, airlines, zones -> departures, arrivals and what the
-- jobs should make of them.
-- A flight leaves at its scheduled time plus its delay; what the destination's clock shows is turned into UTC by
-- taking the first day on which it does so after the given time.

create macro shown(hhmm, zone, day) as
    (day + to_minutes(hhmm // 100 * 60 + hhmm % 100)) at time zone zone;

create macro first_shown(hhmm, zone, after) as
    list_min(list_filter(
        [shown(hhmm % 2400, zone, (after at time zone zone)::date + number) for number in [0, 1, 2]],
        lambda moment: moment > after
    ));

create view scheduled as
    select *, time_hour + to_minutes(minute) as scheduled_departure_at, tzone
    from flights join zones on faa = dest;

create table departures as
    select carrier || flight || '-' || origin || '-' || strftime(scheduled_departure_at, '%Y%m%dT%H%MZ') as flight_id,
        carrier, flight, tailnum as tail_number, origin, dest as destination, scheduled_departure_at,
        scheduled_departure_at + to_minutes(dep_delay) as departed_at, dep_delay as delay_minutes,
        first_shown(sched_arr_time, tzone, scheduled_departure_at) as scheduled_arrival_at, distance as distance_miles,
        arr_delay, arr_time, tzone
    from scheduled where dep_time is not null;

create table arrivals as
    select flight_id, case when arr_delay is not null then scheduled_arrival_at + to_minutes(arr_delay)
        else first_shown(arr_time, tzone, departed_at) end as arrived_at
    from departures where arr_time is not null;

-- Runs of departures delayed by half an hour or more, at most half an hour apart, five at least.
create view sessions as
    with delayed as (
        select origin, departed_at, delay_minutes,
            departed_at - lag(departed_at) over airport <= interval 30 minutes as goes_on
        from departures where delay_minutes >= 30 window airport as (partition by origin order by departed_at)
    ), numbered as (
        select *, sum(case when goes_on then 0 else 1 end) over (
            partition by origin order by departed_at range between unbounded preceding and current row
        ) as session from delayed
    )
    select origin as airport, min(departed_at) as began_at, max(departed_at) as ended_at, count(*) as departures,
        avg(delay_minutes) as mean_delay_minutes, max(delay_minutes) as max_delay_minutes
    from numbered group by origin, session having count(*) >= 5;

-- The ten busiest routes of each day in New York, ties by name.
create view ranked as
    with counted as (
        select (departed_at at time zone 'America/New_York')::date as day, origin, destination, count(*) as departures
        from departures group by all
    )
    select day, row_number() over (partition by day order by departures desc, origin, destination) as rank,
        origin, destination, departures
    from counted qualify rank <= 10;

-- Departures whose arrival was not there half an hour after it was due.
create view late_or_missing as
    select flight_id, carrier, flight, tail_number, origin, destination, departed_at, scheduled_arrival_at,
        scheduled_arrival_at + interval 30 minutes as overdue_at
    from departures left join arrivals using (flight_id)
    where arrived_at is null or arrived_at > overdue_at;
