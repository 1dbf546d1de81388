/* A room without sources yet. */
typedef int pare_empty_room;
