-- The year from the CSV files alone: tables flights, weather, airlines, zones -> views departures and arrivals.
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
